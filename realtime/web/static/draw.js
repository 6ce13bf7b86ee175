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
  if (arrivals.length > 1) parts.push(`${((arrivals.length - 1) / (arrivals.at(-1) - arrivals[0]) * 1000).toFixed(1)} estimates a second`);
  if (estimate) {
    const delay = estimate.latency_ms.capture_to_estimate;
    if (delay !== null) parts.push(`latency ${Math.round(delay)} ms`);
    if (!state.viewing && delays.length) parts.push(`seen to drawn ${Math.round(median(delays.slice(-30)))} ms`);
    if (state.clock) parts.push(`round trip ${Math.round(state.clock.rtt * 1000)} ms`);
    parts.push(`${estimate.faces} ${estimate.faces === 1 ? "face" : "faces"}`);
    parts.push(`dropped ${estimate.dropped.video} frames, ${estimate.dropped.audio} blocks of sound`);
    parts.push(`model ${estimate.model.name} ${estimate.model.checkpoint}`);
  }
  if (state.missed) parts.push(`${state.missed} messages came too fast for this page`);
  if (broker) parts.push(`broker ${broker}`);
  for (const { worker, state: how, reason } of state.statuses.values())
    // Of their own camera and microphone visitors are told beside the buttons.
    if (["failed", "restarting", "behind", "late"].includes(how) && !(worker in state.sources)) wrong.push(`${NAMES[worker] ?? worker} ${how}: ${reason}`);
  for (const { what, count, reason } of state.refused.values())
    wrong.push(`${count} ${{ video: "pictures", audio: "blocks of sound", text: "messages" }[what]} were refused: ${reason}`);
  if (state.lostSoundS) wrong.push(`${state.lostSoundS.toFixed(1)} s of sound were lost while the connection was away`);
  put(at("health"), parts.join(" · "));
  put(at("wrong"), wrong.join("\n"));
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
