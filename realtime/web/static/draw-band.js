// Emotions over time: a column a moment, in the colour of its emotion and the higher the surer, and each stretch by its name.

import { css, EMOTIONS, percent, SIGNS } from "./emotions.js";

const LABELS = 20; // height of the row of names, in CSS pixels

/** spans: in order, {start, end, top, share} in seconds, share 0 to 1; what is shown lies between `from` and `to`. */
export function drawBand(canvas, spans, from, to) {
  const scale = devicePixelRatio, [w, h] = [canvas.clientWidth, canvas.clientHeight];
  if (!w) return;
  if (canvas.width !== Math.round(w * scale) || canvas.height !== Math.round(h * scale)) [canvas.width, canvas.height] = [Math.round(w * scale), Math.round(h * scale)];
  const context = canvas.getContext("2d"), x = (t) => ((t - from) / (to - from)) * w;
  const colours = Object.fromEntries(EMOTIONS.map((name) => [name, css(name)]));
  context.setTransform(scale, 0, 0, scale, 0, 0);
  context.clearRect(0, 0, w, h);
  context.font = "13px system-ui, sans-serif";
  context.textBaseline = "middle";
  const high = h - LABELS;
  for (const { start, end, top, share } of spans) {
    context.fillStyle = colours[top];
    context.fillRect(x(start), high * (1 - share), Math.max(1, x(end) - x(start) + 0.5), high * share);
  }
  context.fillStyle = css("ink");
  for (const { start, end, top } of runs(spans)) {
    const [left, right] = [Math.max(0, x(start)), x(end)], text = `${SIGNS[top]} ${top}`;
    const fitting = [text, SIGNS[top]].find((one) => context.measureText(one).width < right - left - 4);
    if (fitting) context.fillText(fitting, left + 2, h - LABELS / 2);
    context.fillRect(left, high, 1, LABELS);
  }
}

/** Stretches of one emotion each. */
function runs(spans) {
  const found = [];
  for (const { start, end, top } of spans) {
    const last = found.at(-1);
    if (last?.top === top && start - last.end < 0.5) last.end = end;
    else found.push({ start, end, top });
  }
  return found;
}

/** How much of the time each emotion was named, in words. */
export function shares(spans) {
  const seconds = {};
  for (const { start, end, top } of spans) seconds[top] = (seconds[top] ?? 0) + end - start;
  const all = Object.values(seconds).reduce((a, b) => a + b, 0);
  if (!all) return "nothing yet";
  return Object.entries(seconds).sort(([, a], [, b]) => b - a).map(([name, one]) => `${name} ${percent(one / all)}`).join(", ");
}
