// What can be chosen while the page runs: camera and microphone, the mirror, and how still the answer is kept.

import { DEVICES } from "./capture.js";
import { at } from "./dom.js";
import { t } from "./language.js";
import { state, touch } from "./state.js";

const SMOOTHINGS = { 0: t("nothing: as it comes"), 0.5: t("half a second"), 1: t("1 second"), 2: t("2 seconds"), 5: t("5 seconds") };
const MARGINS = { 0: t("at once"), 0.2: t("once it has lasted"), 0.5: t("only when it is plain") };

export class Settings {
  chosen = {}; // by kind: id of a device; in memory only, as browsers keep ids from being told apart elsewhere
  #connection;
  #steadiness = null; // chosen here; null: as the server began

  /** choose(kind): another camera (video) or microphone (audio) was chosen. */
  constructor(connection, choose) {
    this.#connection = connection;
    for (const [kind, name] of Object.entries(DEVICES)) at(`${name}-choice`).onchange = ({ target }) => {
      this.chosen[kind] = target.value;
      choose(kind);
    };
    at("mirror").onchange = ({ target }) => this.mirror(target.checked);
    for (const name of ["smoothing", "margin"]) at(name).onchange = () => {
      this.#steadiness = { smoothing: +at("smoothing").value, margin: +at("margin").value };
      this.joined();
    };
  }

  /** steadiness: {smoothing, margin} as they are now; null where the page cannot change them. */
  hello({ steadiness }) {
    for (const one of document.querySelectorAll(".steady")) one.hidden = !steadiness;
    if (!steadiness) return;
    const { smoothing, margin } = this.#steadiness ?? steadiness;
    fill(at("smoothing"), SMOOTHINGS, smoothing, (seconds) => t("{seconds} seconds", { seconds }));
    fill(at("margin"), MARGINS, margin, (lead) => t("with a lead of {lead}", { lead }));
  }

  /** Tell a stream that knows nothing of it what was chosen. */
  joined() {
    if (this.#steadiness) this.#connection.send({ type: "steady", ...this.#steadiness });
  }

  mirror(on) {
    at("mirror").checked = state.mirror = on;
    touch("picture");
  }

  /** Offer the devices that are there now, and return them. Browsers name them once one may be used. */
  async list() {
    const there = await navigator.mediaDevices.enumerateDevices();
    for (const [kind, name] of Object.entries(DEVICES)) {
      const options = there.filter((one) => one.kind === `${kind}input`).map(({ deviceId, label }, i) => [deviceId, label || `${t(name)} ${i + 1}`]);
      at(`${name}-choice`).replaceChildren(...options.map(([value, text]) => new Option(text, value, false, value === this.chosen[kind])));
      at(`${name}-choice`).disabled = options.length < 2;
    }
    return there;
  }
}

function fill(select, named, value, other) {
  const values = [...new Set([...Object.keys(named).map(Number), value])].sort((a, b) => a - b);
  select.replaceChildren(...values.map((one) => new Option(named[one] ?? other(one), one, false, one === value)));
}
