// Emotions of the last minute.

import { at } from "./dom.js";
import { drawBand, shares } from "./draw-band.js";
import { SPAN_S, state } from "./state.js";

const TOLD_EVERY_MS = 5000;

const canvas = at("timeline");
let toldMs = -Infinity;

export function drawTimeline() {
  const last = Math.max(SPAN_S, state.tops.at(-1)?.end ?? 0, state.history[0].at(-1) ?? 0);
  drawBand(canvas, state.tops, last - SPAN_S, last);
  if (performance.now() - toldMs < TOLD_EVERY_MS) return;
  toldMs = performance.now();
  canvas.setAttribute("aria-label", `Emotions of the last minute: ${shares(state.tops)}`);
}
