// A visit: from the invitation, over the visitor's camera and microphone, to leaving. Cuts of the connection lie within it.

import { acquire, Camera, DEVICES, Microphone } from "./capture.js";
import { now } from "./connection.js";
import { at } from "./dom.js";
import { fromServer, t } from "./language.js";
import { Outbox } from "./outbox.js";
import { forget, state, touch } from "./state.js";

const SILENT_S = 10; // a server that says nothing for so long is out of reach, though the browser holds the connection open

export class Visit {
  #phase = ""; // viewing, invited, asking, visiting
  #connection;
  #say;
  #session = null; // in memory only: a page that is loaded again is a new visitor
  #joined = false;
  #spent = false; // whether this connection had a visit already
  #stream = ""; // of all visitors
  #told = {}; // by kind: the source as the server knows it
  #devices;
  #outbox;
  #settings;

  constructor(connection, say, settings) {
    [this.#connection, this.#say, this.#settings] = [connection, say, settings];
    const outbox = this.#outbox = new Outbox(connection, () => this.#joined && connection.isOpen && connection.timed);
    const changed = () => this.#report();
    state.own = at("own");
    this.#devices = {
      video: new Camera(state.own, {
        changed, framed: () => touch("picture"), wants: () => outbox.takes(), encoded: (t, jpeg) => outbox.picture(t, jpeg),
      }),
      audio: new Microphone({ changed, recorded: (t, samples) => this.#recorded(t, samples) }),
    };
    at("start").onclick = () => this.#start();
    at("leave").onclick = () => this.#leave();
    for (const [kind, name] of Object.entries(DEVICES)) {
      at(name).onclick = () => this.#devices[kind].toggle();
      at(`${name}-again`).onclick = () => this.#again(kind);
    }
    document.addEventListener("visibilitychange", changed);
    addEventListener("pagehide", () => this.#leave());
    navigator.mediaDevices?.addEventListener("devicechange", () => this.#noticeNew());
    setInterval(() => this.#watch(), 1000);
  }

  // --- what the server says -----------------------------------------------------------------------------------------

  hello({ source, stream, broker }) {
    at("published").hidden = !broker;
    at("stream").textContent = this.#stream = stream;
    this.#spent = false;
    state.viewing = source !== "browser";
    state.recorded = source === "recording";
    if (state.viewing) {
      if (this.#phase === "visiting") this.#end("");
      this.#enter("viewing");
    } else if (this.#phase === "visiting") this.#join();
    else if (this.#phase !== "asking") this.#enter("invited");
    return state.recorded ? "recording" : state.viewing ? "live" : this.#phase === "visiting" ? "joining …" : "ready";
  }

  joined({ session, stream, resumed }) {
    if (this.#phase !== "visiting") return this.#connection.send({ type: "leave" }); // left before it was answered
    if (!resumed) {
      if (this.#session) this.#outbox.clear(); // sound of a session that is gone
      forget();
    }
    this.#session = session;
    this.#joined = true;
    this.#told = {};
    at("stream").textContent = stream;
    this.#report();
    if (!resumed) this.#settings.joined();
    this.#say("live");
  }

  get isLive() { return this.#joined; }

  timed() { this.#outbox.flush(); }

  /** The connection is cut; the visit goes on. */
  cut() { this.#joined = false; }

  /** The server will not have this visit, or not any longer. */
  over(reason) {
    if (this.#phase === "visiting") this.#end(reason);
  }

  // --- what the visitor does ----------------------------------------------------------------------------------------

  async #start() {
    this.#enter("asking");
    this.#why("waiting for your permission …");
    const found = await acquire(Object.keys(this.#devices), this.#settings.chosen);
    if (this.#phase !== "asking") return release(found);
    if (Object.values(found).every((one) => typeof one === "string")) {
      return this.#end([...new Set(Object.values(found))].join("\n"));
    }
    await Promise.all(Object.entries(found).map(([kind, one]) => this.#take(kind, one)));
    if (this.#phase !== "asking") return;
    this.#enter("visiting");
    at(this.#devices.video.track ? "camera" : "microphone").focus();
    // A new visit has a connection of its own: what the last one left behind on it cannot be taken for this one's.
    if (this.#connection.isOpen && !this.#spent) this.#join();
    else this.#connection.open();
  }

  async #again(kind) {
    const found = await acquire([kind], this.#settings.chosen);
    if (this.#phase === "visiting") this.#take(kind, found[kind]);
    else release(found);
  }

  /** The camera or microphone that was chosen in the settings. */
  async choose(kind) {
    if (this.#phase !== "visiting") return;
    this.#devices[kind].stop("another one is being started");
    await this.#again(kind);
  }

  async #take(kind, found) {
    try {
      await this.#devices[kind].take(found);
    } catch (error) {
      this.#devices[kind].stop(`${DEVICES[kind]}: ${error.message}`);
    }
    if (kind === "video") this.#settings.mirror(this.#devices.video.mirrored);
    await this.#settings.list();
  }

  #leave() {
    if (this.#phase !== "visiting") return;
    this.#connection.send({ type: "leave" });
    this.#end("");
  }

  #join() {
    this.#spent = true;
    this.#connection.send({ type: "join", session: this.#session });
    this.#say("joining …");
  }

  #end(reason) {
    this.#session = null;
    this.#joined = false;
    this.#enter("invited");
    for (const device of Object.values(this.#devices)) device.stop();
    this.#outbox.clear();
    forget();
    at("stream").textContent = this.#stream;
    this.#why(reason);
    at("start").focus();
    if (this.#connection.isOpen) this.#say("ready");
  }

  // --- what is sent -------------------------------------------------------------------------------------------------

  #report() {
    for (const [kind, device] of Object.entries(this.#devices)) {
      const source = state.sources[kind] = device.source, text = JSON.stringify(source);
      if (!this.#joined || this.#told[kind] === text) continue;
      this.#told[kind] = text;
      this.#connection.send({ type: "source", kind, ...source });
    }
    this.#show();
    touch("picture", "answer");
  }

  #recorded(t, samples) {
    if (this.#outbox.sound(t, samples, this.#devices.audio.source.rate)) {
      state.lostSoundS = this.#outbox.lostS;
      touch("health");
    }
    state.level = samples.reduce((loudest, sample) => Math.max(loudest, Math.abs(sample)), 0) / 32768;
    touch("level");
  }

  #watch() {
    if (!this.#joined || !this.#connection.timed || now() - this.#connection.heardAt < SILENT_S) return;
    this.cut();
    this.#say("connection lost; trying again", true);
    this.#connection.open();
  }

  // --- what is shown ------------------------------------------------------------------------------------------------

  #enter(phase) {
    this.#phase = phase;
    document.body.dataset.phase = phase;
    at("start").disabled = phase === "asking";
  }

  #why(text) {
    at("why").textContent = text.split("\n").map(fromServer).join("\n");
  }

  #show() {
    for (const [kind, name] of Object.entries(DEVICES)) {
      const { track } = this.#devices[kind], { state: how, reason } = state.sources[kind];
      at(name).setAttribute("aria-pressed", Boolean(track?.enabled));
      at(name).disabled = !track;
      at(`${name}-notice`).hidden = how === "on" || reason === "switched off";
      at(`${name}-reason`).textContent = t(reason);
      at(`${name}-again`).hidden = how !== "off";
    }
  }

  /** A device that was plugged in is offered, not taken. */
  async #noticeNew() {
    if (this.#phase !== "visiting") return;
    const there = await this.#settings.list();
    for (const [kind, name] of Object.entries(DEVICES))
      if (!this.#devices[kind].track && there.some((one) => one.kind === `${kind}input`)) at(`${name}-reason`).textContent = t(`there is a ${name} now`);
  }
}

function release(found) {
  for (const one of Object.values(found)) if (typeof one !== "string") one.stop();
}
