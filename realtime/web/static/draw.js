// Everything is drawn once a display frame, and only what changed: messages come in bursts, frames do not.

import { at, put } from "./dom.js";
import { buildAnswer, drawAnswer } from "./draw-answer.js";
import { buildModel, drawModel } from "./draw-model.js";
import { buildPeople, drawPeople } from "./draw-people.js";
import { buildPicture, drawPicture } from "./draw-picture.js";
import { buildNumbers, buildPlot, drawPlot } from "./draw-plot.js";
import { drawExtra } from "./draw-extra.js";
import { drawTimeline } from "./draw-timeline.js";
import { drawWords } from "./draw-words.js";
import { fromServer, t } from "./language.js";
import { state, touch } from "./state.js";

const DELAYS = 200;
const SILENT_MS = 2000; // a picture that is older is not shown as if it were now
const NAMES = { video: "camera", audio: "microphone", transcript: "words" }; // of workers, where people have another
const PARTS = { // how each is drawn, and its shortest span in ms: nobody reads a number ten times a second
  picture: [drawPicture, 0], answer: [() => { drawAnswer(); drawPeople(); measureDelay(); }, 0], words: [drawWords, 0], model: [drawModel, 0],
  level: [drawLevel, 60], timeline: [drawTimeline, 95], plot: [() => { drawPlot(); drawExtra(); }, 95], health: [drawHealth, 250],
};

/** Of the last estimates of a visitor: ms from the capture of the newest picture in it until it was drawn. */
export const delays = [];

const drawnAt = {};

/** chosen(x, y): somebody points at a person in the picture who is not read; look(id): at one who is. */
export function startDrawing(chosen, look) {
  buildPicture(chosen, look);
  buildAnswer();
  buildPeople(look);
  buildNumbers();
  buildModel();
  const again = () => { buildPlot(); touch("timeline", "model", "player"); };
  again();
  new ResizeObserver(again).observe(at("plot"));
  for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) matchMedia(query).addEventListener("change", again);
  requestAnimationFrame(frame);
}

/** A part of the page that is drawn elsewhere. */
export function draws(part, draw, everyMs) {
  PARTS[part] = [draw, everyMs];
}

function frame(nowMs) {
  for (const part of state.dirty) {
    const [draw, everyMs] = PARTS[part] ?? [() => {}, 0];
    if (nowMs - (drawnAt[part] ?? -Infinity) < everyMs) continue;
    drawnAt[part] = nowMs;
    state.dirty.delete(part);
    draw();
  }
  if (state.viewing && !state.recorded && state.pictureAt && nowMs - state.pictureAt > SILENT_MS && !state.ended) at("nobody").hidden = false;
  requestAnimationFrame(frame);
}

let measured = null;

function measureDelay() {
  const { estimate } = state;
  if (!estimate || state.viewing || !state.clock || measured === estimate) return;
  measured = estimate;
  const { present, age_s: age } = estimate.modalities.vision;
  if (!present) return;
  const capturedMs = (state.estimateEnd - age - state.clock.offset) * 1000;
  delays.push(performance.now() - capturedMs);
  delays.splice(0, delays.length - DELAYS);
}

function drawLevel() {
  at("microphone").style.setProperty("--level", Math.min(1, Math.sqrt(state.level)).toFixed(2));
}

function drawHealth() {
  const { arrivals, broker, stream: { estimate } } = state, parts = [], wrong = [];
  if (arrivals.length > 1) parts.push(t("{rate} estimates a second", { rate: ((arrivals.length - 1) / (arrivals.at(-1) - arrivals[0]) * 1000).toFixed(1) }));
  if (estimate) {
    const delay = estimate.latency_ms.capture_to_estimate;
    if (delay !== null) parts.push(t("latency {ms} ms", { ms: Math.round(delay) }));
    if (!state.viewing && delays.length) parts.push(t("seen to drawn {ms} ms", { ms: Math.round(median(delays.slice(-30))) }));
    if (state.clock) parts.push(t("round trip {ms} ms", { ms: Math.round(state.clock.rtt * 1000) }));
    parts.push(estimate.faces === 1 ? t("1 face") : t("{count} faces", { count: estimate.faces }));
    parts.push(t("dropped {frames} frames, {blocks} blocks of sound", { frames: estimate.dropped.video, blocks: estimate.dropped.audio }));
    parts.push(t("model {name}", { name: `${estimate.model.name} ${estimate.model.checkpoint}` }));
  }
  if (state.missed) parts.push(t("{count} messages came too fast for this page", { count: state.missed }));
  if (broker) parts.push(t("broker {state}", { state: t(broker) }));
  for (const { worker, state: how, reason } of state.statuses.values())
    // Of their own camera and microphone visitors are told beside the buttons.
    if (["failed", "restarting", "behind", "late"].includes(how) && !(worker in state.sources)) wrong.push(`${t(NAMES[worker] ?? worker)} ${t(how)}: ${fromServer(reason)}`);
  for (const { what, count, reason } of state.refused.values())
    wrong.push(t("{count} {what} were refused: {reason}", { count, what: t({ video: "pictures", audio: "blocks of sound", text: "messages" }[what]), reason: fromServer(reason) }));
  if (state.lostSoundS) wrong.push(t("{seconds} s of sound were lost while the connection was away", { seconds: state.lostSoundS.toFixed(1) }));
  put(at("health"), parts.join(" · "));
  put(at("wrong"), wrong.join("\n"));
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
