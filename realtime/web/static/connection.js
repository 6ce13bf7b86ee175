// The page's WebSocket. It opens again after a cut, and answers at once when the server compares clocks.

const RETRY_MS = [250, 500, 1000, 2000];
const MEANT = 4400; // close codes from here on are the server's decision: trying again would not help

/** Page time, in seconds. */
export const now = () => performance.now() / 1000;

export class Connection {
  timed = false; // whether the server knows this connection's clock
  heardAt = 0;
  #socket = null;
  #failures = 0;
  #retry = null;
  #told;
  #pictured;
  #lost;

  /** told(message), pictured(buffer), and lost({final, reason}), which says whether to try again. */
  constructor({ told, pictured, lost }) {
    [this.#told, this.#pictured, this.#lost] = [told, pictured, lost];
  }

  /** Open, or leave what is open and begin anew. */
  open() {
    clearTimeout(this.#retry);
    const left = this.#socket;
    const address = new URL("stream", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    address.search = location.search;
    const socket = new WebSocket(address);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => { this.#failures = 0; };
    socket.onmessage = ({ data }) => this.#received(socket, data);
    socket.onclose = ({ code, reason }) => socket === this.#socket && this.#closed(code, reason);
    this.#socket = socket;
    this.timed = false;
    left?.close();
  }

  get isOpen() { return this.#socket?.readyState === WebSocket.OPEN; }

  get isClosed() { return this.#socket === null; }

  /** Bytes that the network has not taken yet. */
  get backlog() { return this.#socket?.bufferedAmount ?? 0; }

  send(message) {
    if (this.isOpen) this.#socket.send(JSON.stringify(message));
  }

  /** kind: 1 picture, 2 sound; t: page time of capture; payload: bytes. */
  sendSample(kind, t, payload) {
    const message = new Uint8Array(9 + payload.byteLength), head = new DataView(message.buffer);
    head.setUint8(0, kind);
    head.setFloat64(1, t, true);
    message.set(payload, 9);
    this.#socket.send(message);
  }

  #received(socket, data) {
    if (socket !== this.#socket) return;
    this.heardAt = now();
    if (typeof data !== "string") return this.#pictured(data);
    const message = JSON.parse(data);
    if (message.type === "ping") return this.send({ type: "pong", id: message.id, t: now() });
    if (message.type === "clock") this.timed = true;
    this.#told(message);
  }

  #closed(code, reason) {
    this.timed = false;
    const final = code >= MEANT;
    if (final) this.#socket = null;
    const again = this.#lost({ final, reason });
    if (again && !final) this.#retry = setTimeout(() => this.open(), RETRY_MS[Math.min(this.#failures++, RETRY_MS.length - 1)]);
  }
}
