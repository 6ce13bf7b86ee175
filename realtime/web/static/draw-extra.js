// What the heads of a checkpoint's own say: classes with the most likely one, and numbers on their scale.

import { at, put } from "./dom.js";
import { state } from "./state.js";

const box = at("extra"), list = box.querySelector("dl");
const DIGITS = 2;

export function drawExtra() {
  const extra = state.estimate?.extra ?? {};
  for (const [name, said] of Object.entries(extra)) (rows.get(name) ?? build(name, said))(said);
  for (const [name, draw] of rows) if (!(name in extra)) draw(null);
  box.hidden = !rows.size;
}

const rows = new Map();

/** The draw of one head, which takes what it says, or null when nothing is perceived. */
function build(name, said) {
  const [row, term, shown, meter, told] = ["div", "dt", "dd", "meter", "span"].map((tag) => document.createElement(tag));
  const title = name.replaceAll("_", " ");
  const scale = said.range ? `${said.range.join(" to ")} ${said.unit}`.trim() : Object.keys(said.probabilities).join(", ");
  const small = document.createElement("small");
  small.textContent = scale;
  term.append(`${title} `, small);
  [meter.min, meter.max] = said.range ?? [0, 1];
  meter.setAttribute("aria-label", title);
  shown.append(meter, told);
  row.append(term, shown);
  list.append(row);
  const draw = (now) => {
    const value = now?.range ? now.value : now?.probabilities[now.top];
    meter.value = value ?? meter.min;
    put(told, now ? (now.range ? now.value.toFixed(DIGITS) : `${now.top} ${Math.round(100 * value)} %`) : "-");
  };
  rows.set(name, draw);
  return draw;
}
