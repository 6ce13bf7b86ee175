// What waits to be sent: no picture, for the next one is newer; sound of at most ten seconds, for what was said is not said again.

const PICTURE = 1, SOUND = 2;
const MOST_WAITING_S = 10;
// What the network was given before a cut is lost with it, so sound waits here and not there.
const BACKLOG = { [PICTURE]: 256_000, [SOUND]: 64_000 };

export class Outbox {
  lostS = 0; // of sound that waited too long
  #connection;
  #sound = [];
  #waitingS = 0;
  #ready;

  /** ready(): whether the server takes samples now. */
  constructor(connection, ready) {
    [this.#connection, this.#ready] = [connection, ready];
  }

  takes(kind = PICTURE) { return this.#ready() && this.#connection.backlog < BACKLOG[kind]; }

  picture(t, jpeg) {
    if (this.takes()) this.#connection.sendSample(PICTURE, t, jpeg);
  }

  /** Returns whether older sound had to make room. */
  sound(t, samples, rate) {
    this.#sound.push({ t, samples, lengthS: samples.length / rate });
    this.#waitingS += samples.length / rate;
    this.flush();
    const lostBefore = this.lostS;
    while (this.#waitingS > MOST_WAITING_S) this.lostS += this.#next().lengthS;
    return this.lostS > lostBefore;
  }

  flush() {
    while (this.#sound.length && this.takes(SOUND)) {
      const { t, samples } = this.#next();
      this.#connection.sendSample(SOUND, t, new Uint8Array(samples.buffer));
    }
  }

  clear() {
    this.#sound = [];
    this.#waitingS = this.lostS = 0;
  }

  #next() {
    const block = this.#sound.shift();
    this.#waitingS -= block.lengthS;
    return block;
  }
}
