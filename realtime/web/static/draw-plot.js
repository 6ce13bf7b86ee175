// Sentiment, valence and arousal: their numbers now, and their last minute.

import { at, put } from "./dom.js";
import { css, signed } from "./emotions.js";
import { t } from "./language.js";
import { SPAN_S, state, touch } from "./state.js";

const HEIGHT = 150;
const SCALES = { sentiment: t("−3 to 3"), valence: t("−1 to 1"), arousal: t("−1 to 1") };
const DASHES = { valence: [7, 5], arousal: [2, 4] };

const box = at("plot");
const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.round(seconds % 60)).padStart(2, "0")}`;
let plot = null;

/** Also where the page's width or colours changed: uPlot takes both only at its start. */
export function buildPlot() {
  const axis = { stroke: css("dim"), grid: { stroke: css("line"), width: 1 }, ticks: { show: false } };
  const series = (label, colour, scale) => ({ label: t(label), stroke: css(colour), width: 2, dash: DASHES[label], scale, spanGaps: false, points: { show: false } });
  plot?.destroy();
  plot = new uPlot({
    width: box.clientWidth, height: HEIGHT, cursor: { show: false }, legend: { live: false },
    scales: {
      x: { time: false, range: () => [Math.max(0, (state.history[0].at(-1) ?? 0) - SPAN_S), Math.max(SPAN_S, state.history[0].at(-1) ?? 0)] },
      s: { range: [-3, 3] }, v: { range: [-1, 1] },
    },
    axes: [{ ...axis, space: 80, size: 26, values: (_, ticks) => ticks.map(clock) },
           { ...axis, scale: "s", size: 32 }, { ...axis, scale: "v", side: 1, size: 40, grid: { show: false } }],
    series: [{}, series("sentiment", "ink", "s"), series("valence", "vision", "v"), series("arousal", "audio", "v")],
  }, state.history, box);
  touch("plot");
}

export function buildNumbers() {
  for (const [name, scale] of Object.entries(SCALES))
    at("affect").insertAdjacentHTML("beforeend", `<div data-name="${name}"><dt><i></i>${t(name)} <small>${scale}</small></dt><dd>-</dd></div>`);
}

export function drawPlot() {
  const { estimate } = state, now = { sentiment: estimate?.sentiment?.value, valence: estimate?.valence, arousal: estimate?.arousal };
  for (const [name, value] of Object.entries(now)) put(at("affect").querySelector(`[data-name=${name}] dd`), value == null ? "-" : signed(value));
  plot.setData(state.history);
}
