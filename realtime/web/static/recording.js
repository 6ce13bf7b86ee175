// Recording: asked for with everybody's consent, shown while it is on, marked, and offered as files when it is done.

import { at } from "./dom.js";
import { EMOTIONS, state } from "./state.js";

export class Recording {
  #connection;
  #on = false;
  #startedPage = 0;
  #marking = false;

  constructor(connection) {
    this.#connection = connection;
    at("host").textContent = at("consent-host").textContent = location.host;
    at("marks").querySelector("span").innerHTML = EMOTIONS.map((name, i) => `<button data-key="${i + 1}">${name}</button>`).join(" ");
    at("marks").onclick = ({ target }) => target.dataset.key && connection.send({ type: "key", key: target.dataset.key });
    at("record").onclick = () => (this.#on ? connection.send({ type: "record", on: false, video: false, audio: false }) : this.#ask());
    at("agreed").onchange = ({ target }) => { at("record-start").disabled = !target.checked; };
    at("record-cancel").onclick = () => at("consent").close();
    at("record-start").onclick = () => this.#start();
    setInterval(() => this.#tick(), 250);
  }

  hello({ marking, recordable }) {
    this.#marking = marking;
    at("record").hidden = !recordable;
    this.#show();
  }

  told({ state: how, reason, started, video, audio, files }) {
    this.#on = how === "on";
    if (this.#on) this.#startedPage = state.clock ? started - state.clock.offset : performance.now() / 1000;
    at("recording-what").textContent = `recording${video ? " with pictures" : ""}${audio ? (video ? " and sound" : " with sound") : ""}`;
    at("recording-failed").textContent = how === "failed" ? `recording failed: ${reason}` : "";
    if (how === "ready") this.#offer(files);
    this.#show();
  }

  /** The session is over, or another one begins: nothing is recorded now. Files stay on offer. */
  stop() {
    this.#on = false;
    at("consent").close();
    this.#show();
  }

  /** Consent is asked for each recording. */
  #ask() {
    for (const box of at("consent").querySelectorAll("input")) box.checked = false;
    at("record-start").disabled = true;
    at("consent").showModal();
  }

  #start() {
    at("consent").close();
    this.#connection.send({ type: "record", on: true, video: at("keep-video").checked, audio: at("keep-audio").checked });
  }

  #offer(files) {
    at("files").hidden = false;
    const known = new Set([...at("files").querySelectorAll("a")].map((link) => link.href));
    for (const { name, bytes, url } of files) {
      const link = document.createElement("a"), item = document.createElement("li");
      link.href = withToken(url);
      link.download = link.textContent = name;
      if (known.has(link.href)) continue;
      item.append(link, ` ${size(bytes)}`);
      at("files").querySelector("ul").append(item);
    }
  }

  #show() {
    at("record").querySelector("span").textContent = this.#on ? "Stop" : "Record";
    at("record").setAttribute("aria-label", this.#on ? "Stop recording" : "Record");
    at("record").classList.toggle("on", this.#on);
    at("recording").hidden = !this.#on;
    at("marks").hidden = !(this.#on || this.#marking);
    this.#tick();
  }

  #tick() {
    if (!this.#on) return;
    const seconds = Math.max(0, Math.floor(performance.now() / 1000 - this.#startedPage));
    at("elapsed").textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
  }
}

function withToken(url) {
  const address = new URL(url, location.href);
  for (const [key, value] of new URLSearchParams(location.search)) address.searchParams.set(key, value);
  return address.href;
}

function size(bytes) {
  return bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
