// Recording: asked for with everybody's consent, shown while it is on, marked, and offered as files when it is done.

import { at, put } from "./dom.js";
import { EMOTIONS, minutes } from "./emotions.js";
import { fromServer, language, t } from "./language.js";
import { state } from "./state.js";

const KEPT = t("kept for ten minutes after the session; download it now");

export class Recording {
  #connection;
  #server = ""; // whose files are on offer
  #on = false;
  #startedPage = 0;
  #marking = false;
  #withdrawing = null;

  constructor(connection) {
    this.#connection = connection;
    at("host").textContent = at("consent-host").textContent = location.host;
    at("marks").querySelector("span").innerHTML = EMOTIONS.map((name, i) => `<button data-key="${i + 1}">${t(name)}</button>`).join(" ");
    at("marks").onclick = ({ target }) => target.dataset.key && connection.send({ type: "key", key: target.dataset.key });
    at("record").onclick = () => (this.#on ? connection.send({ type: "record", on: false, video: false, audio: false }) : this.#ask());
    at("agreed").onchange = ({ target }) => { at("record-start").disabled = !target.checked; };
    at("record-cancel").onclick = () => at("consent").close();
    at("record-start").onclick = () => this.#start();
    setInterval(() => this.#tick(), 250);
  }

  hello({ server, marking, recordable }) {
    if (this.#server && server !== this.#server) this.withdraw("the server was started anew; what was recorded before is gone");
    else if (this.#links.length) put(at("files-note"), KEPT);
    this.#server = server;
    at("files").querySelector("ul").inert = false;
    this.#marking = marking;
    at("record").hidden = !recordable;
    this.#show();
  }

  told({ state: how, reason, started, video, audio, files }) {
    this.#on = how === "on";
    if (this.#on) this.#startedPage = state.clock ? started - state.clock.offset : performance.now() / 1000;
    at("recording-what").textContent = t(
      video ? (audio ? "recording with pictures and sound" : "recording with pictures") : audio ? "recording with sound" : "recording",
    );
    at("recording-failed").textContent = how === "failed" ? t("recording failed: {reason}", { reason: fromServer(reason) }) : "";
    if (how === "ready") this.#offer(files);
    this.#show();
  }

  /** The session is over, or another one begins: nothing is recorded now. Files stay on offer. */
  stop() {
    this.#on = false;
    at("consent").close();
    this.#show();
  }

  /** The server cannot be asked for files at the moment. */
  outOfReach() {
    if (!this.#links.length) return;
    at("files").querySelector("ul").inert = true;
    put(at("files-note"), t("out of reach until the connection is back"));
  }

  /** The server deletes the files on offer after so many seconds. */
  keepFor(seconds) {
    clearTimeout(this.#withdrawing);
    this.#withdrawing = setTimeout(() => this.withdraw("what was recorded is no longer kept"), 1000 * seconds);
  }

  /** The files are gone: no link leads to them any more. */
  withdraw(reason) {
    clearTimeout(this.#withdrawing);
    if (!this.#links.length) return;
    at("files").querySelector("ul").replaceChildren();
    put(at("files-note"), t(reason));
  }

  get #links() { return [...at("files").querySelectorAll("a")]; }

  /** Consent is asked for each recording. */
  #ask() {
    for (const box of at("consent").querySelectorAll("input")) box.checked = false;
    at("record-start").disabled = true;
    at("consent").showModal();
  }

  #start() {
    at("consent").close();
    this.#connection.send({ type: "record", on: true, video: at("keep-video").checked, audio: at("keep-audio").checked, language });
  }

  /** One line a recording: its report to be seen, and its files to be downloaded. */
  #offer(files) {
    at("files").hidden = false;
    put(at("files-note"), KEPT);
    const known = new Set(this.#links.map((link) => link.href));
    const lines = Map.groupBy(files.filter(({ url }) => !known.has(withToken(url))), ({ url }) => url.split("/").at(-2));
    for (const recorded of lines.values()) {
      const item = document.createElement("li");
      for (const { name, bytes, url } of recorded.toSorted((a, b) => b.name.endsWith(".html") - a.name.endsWith(".html"))) {
        const link = document.createElement("a"), isReport = name.endsWith(".html");
        link.href = withToken(url);
        link.textContent = isReport ? t("See your report") : name;
        if (isReport) Object.assign(link, { className: "report", target: "_blank", rel: "noopener" });
        else link.download = name;
        item.append(...(item.hasChildNodes() ? [" · "] : []), link, isReport ? "" : ` ${size(bytes)}`);
      }
      at("files").querySelector("ul").append(item);
    }
  }

  #show() {
    at("record").querySelector("span").textContent = t(this.#on ? "Stop" : "Record");
    at("record").setAttribute("aria-label", t(this.#on ? "Stop recording" : "Record"));
    at("record").classList.toggle("on", this.#on);
    at("recording").hidden = !this.#on;
    at("marks").hidden = !(this.#on || this.#marking);
    this.#tick();
  }

  #tick() {
    if (this.#on) at("elapsed").textContent = minutes(Math.max(0, performance.now() / 1000 - this.#startedPage));
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
