// How the model works: what it looks at, who teaches whom, which patterns it uses. Drawn while it is open.

import { at, put } from "./dom.js";
import { drawAtoms } from "./draw-atoms.js";
import { buildGraphs, drawGraphs } from "./draw-graphs.js";
import { MODALITIES, percent, signed } from "./emotions.js";
import { state, touch } from "./state.js";

const rows = new Map(); // by modality: its table row

export function buildModel() {
  buildGraphs();
  for (const [key, name] of Object.entries(MODALITIES)) {
    at("modalities").tBodies[0].insertAdjacentHTML("beforeend",
      `<tr data-name="${key}"><th scope="row">${name}</th><td>-</td><td>-</td><td>-</td></tr>`);
    rows.set(key, at("modalities").tBodies[0].lastElementChild);
  }
  at("model").ontoggle = () => touch("model");
}

export function drawModel() {
  if (!at("model").open) return;
  for (const [key, row] of rows) {
    const one = state.estimate?.modalities[key], [, age, teaches, alone] = row.cells;
    put(age, one?.age_s == null ? "-" : `${one.age_s.toFixed(1)} s`);
    put(teaches, one?.present ? percent(one.weight) : "-");
    put(alone, one?.sentiment == null ? "-" : signed(one.sentiment));
  }
  drawGraphs(state.estimate?.graph);
  drawAtoms();
}
