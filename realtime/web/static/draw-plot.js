// The last minute of sentiment, valence and arousal.

import { at } from "./dom.js";
import { SPAN_S, state, touch } from "./state.js";

const HEIGHT = 190;

const box = at("plot");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.round(seconds % 60)).padStart(2, "0")}`;
let plot = null;

/** Also where the page's width or colours changed: uPlot takes both only at its start. */
export function buildPlot() {
  const axis = { stroke: css("--dim"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false } };
  const series = (label, colour, scale) => ({ label, stroke: css(colour), width: 2, scale, spanGaps: false, points: { show: false } });
  plot?.destroy();
  plot = new uPlot({
    width: box.clientWidth, height: HEIGHT, cursor: { show: false }, legend: { live: false },
    scales: {
      x: { time: false, range: (_, __, last) => [Math.max(0, (last ?? 0) - SPAN_S), Math.max(SPAN_S, last ?? 0)] },
      s: { range: [-3, 3] }, v: { range: [-1, 1] },
    },
    axes: [{ ...axis, space: 80, size: 26, values: (_, ticks) => ticks.map(clock) },
           { ...axis, scale: "s", size: 32 }, { ...axis, scale: "v", side: 1, size: 40, grid: { show: false } }],
    series: [{}, series("sentiment", "--ink", "s"), series("valence", "--vision", "v"), series("arousal", "--audio", "v")],
  }, state.history, box);
  touch("plot");
}

export function drawPlot() {
  plot.setData(state.history);
}
