// The player of recordings: which one, where in it, how fast. All who look at a server's recordings see the same.

import { at, put } from "./dom.js";
import { draws } from "./draw.js";
import { drawBand } from "./draw-band.js";
import { minutes } from "./emotions.js";
import { state, touch } from "./state.js";

const SPEEDS = [0.5, 1, 2, 4, 8];

export class Player {
  #connection;
  #session = null; // {name, started, origin, length, spans, marks}
  #on = false;

  constructor(connection) {
    this.#connection = connection;
    at("speed").replaceChildren(...SPEEDS.map((speed) => new Option(`${speed} ×`, speed, false, speed === 1)));
    at("play").onclick = () => this.#ask({ on: !this.#on });
    at("seek").onchange = ({ target }) => this.#ask({ at: +target.value });
    at("seek").oninput = ({ target }) => this.#place(+target.value);
    at("speed").onchange = ({ target }) => this.#ask({ speed: +target.value });
    at("loop").onchange = ({ target }) => this.#ask({ loop: target.checked });
    addEventListener("keydown", (event) => {
      if (event.key !== " " || event.target !== document.body || at("player").hidden) return;
      event.preventDefault();
      this.#ask({ on: !this.#on });
    });
    draws("player", () => this.#draw(), 0);
    draws("position", () => this.#follow(), 95);
  }

  hello({ source }) { at("player").hidden = source !== "recording"; }

  /** sessions: list of {name, started, length, problem}. */
  offer({ sessions, chosen }) {
    at("sessions").hidden = sessions.length < 2;
    at("sessions").firstElementChild.replaceChildren(...sessions.map(({ name, started, problem }, i) => {
      const item = document.createElement("li"), button = document.createElement("button");
      button.textContent = `${name}${started ? ` · ${dated(started, "medium")}` : ""}${problem ? ` · ${problem}` : ""}`;
      button.disabled = Boolean(problem);
      button.setAttribute("aria-current", i === chosen);
      button.onclick = () => this.#ask({ session: i });
      item.append(button);
      return item;
    }));
  }

  /** spans: [start, end, emotion, share]; marks: [start, end, text]; all in seconds of the recording. origin: stream time of its start. */
  opened(session) {
    this.#session = session;
    const { name, started, length, marks } = session;
    document.title = `${name} · recording`;
    put(at("stream"), name);
    put(at("player-title"), `Recording of ${started ? dated(started, "full") : "a file, in its own time"} · ${name}`);
    at("seek").max = length;
    at("recorded-marks").replaceChildren(...(marks.length ? ["Marks: "] : []), ...marks.map(([start, , text]) => {
      const button = document.createElement("button");
      button.textContent = `${minutes(start)} ${text}`;
      button.onclick = () => this.#ask({ at: start });
      return button;
    }).flatMap((button) => [button, " "]));
    at("marked-places").replaceChildren(...marks.map(([start, end]) => {
      const place = document.createElement("i");
      Object.assign(place.style, { left: `${100 * start / length}%`, width: `max(2px, ${100 * (end - start) / length}%)` });
      return place;
    }));
    this.#place(0);
    touch("player");
  }

  playing({ on, speed, loop }) {
    this.#on = on;
    put(at("play"), on ? "Pause" : "Play");
    at("speed").value = speed;
    at("loop").checked = loop;
  }

  #ask(what) { this.#connection.send({ type: "play", ...what }); }

  #draw() {
    if (!this.#session) return;
    const spans = this.#session.spans.map(([start, end, top, share]) => ({ start, end, top, share }));
    drawBand(at("course"), spans, 0, this.#session.length);
  }

  /** The position is that of the estimate that is shown; one that is being chosen is left alone. */
  #follow() {
    if (this.#session && state.estimate && !at("seek").matches(":active")) this.#place(Math.max(0, state.estimateEnd - this.#session.origin));
  }

  #place(seconds) {
    at("seek").value = seconds;
    const text = `${minutes(seconds)} of ${minutes(this.#session?.length ?? 0)}`;
    put(at("position"), text);
    at("seek").setAttribute("aria-valuetext", text);
  }
}

const dated = (unix, dateStyle) => new Date(1000 * unix).toLocaleString("en-GB", { dateStyle, timeStyle: "short" });
