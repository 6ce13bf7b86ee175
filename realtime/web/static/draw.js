// Everything is drawn once a display frame, and only what changed: messages come in bursts, frames do not.

import { at, put } from "./dom.js";
import { drawAtoms } from "./draw-atoms.js";
import { buildGraphs, drawGraphs } from "./draw-graphs.js";
import { drawPicture } from "./draw-picture.js";
import { buildPlot, drawPlot } from "./draw-plot.js";
import { drawWords } from "./draw-words.js";
import { EMOTIONS, MODALITIES, state, touch } from "./state.js";

const WHY_ABSENT = { vision: "no face in sight", audio: "no voice", text: "no words" };
const WORKERS = { vision: ["video", "face"], audio: ["audio", "voice"], text: ["audio", "transcript"] };
const DELAYS = 200;
const SURE = 0.6; // from here on an emotion is said to be what a channel shows
const PARTS = { // how each is drawn, and its shortest span in ms: nobody reads a number ten times a second
  picture: [drawPicture, 0], estimate: [drawEstimate, 0], words: [drawWords, 0], atoms: [drawAtoms, 0],
  level: [drawLevel, 60], plot: [drawPlot, 95], health: [drawHealth, 250],
};

/** Of the last estimates of a visitor: ms from the capture of the newest picture in it until it was drawn. */
export const delays = [];

const drawnAt = {};
const bars = new Map(); // by emotion: its label, bar and number
const rows = new Map(); // by modality: its table row

export function startDrawing() {
  build();
  buildGraphs();
  buildPlot();
  addEventListener("resize", buildPlot);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { buildPlot(); touch("atoms"); });
  requestAnimationFrame(frame);
}

function frame(nowMs) {
  for (const part of state.dirty) {
    const [draw, everyMs] = PARTS[part];
    if (nowMs - (drawnAt[part] ?? -Infinity) < everyMs) continue;
    drawnAt[part] = nowMs;
    state.dirty.delete(part);
    draw();
  }
  if (state.viewing && state.pictureAt && nowMs - state.pictureAt > 2000 && !state.ended) at("nobody").hidden = false;
  requestAnimationFrame(frame);
}

const signed = (value) => `${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}`;

function build() {
  for (const name of EMOTIONS) {
    at("emotions").insertAdjacentHTML("beforeend", `<dt>${name}</dt><dd class="bar"><i></i></dd><dd class="number">-</dd>`);
    const [label, bar, number] = [...at("emotions").children].slice(-3);
    bar.firstChild.style.background = `var(--${name})`;
    bars.set(name, { label, bar: bar.firstChild, number });
  }
  for (const [key, name] of Object.entries(MODALITIES)) {
    at("modalities").tBodies[0].insertAdjacentHTML("beforeend",
      `<tr data-name="${key}"><th scope="row">${name}</th><td class="absent">-</td><td>-</td><td>-</td><td>-</td></tr>`);
    rows.set(key, at("modalities").tBodies[0].lastElementChild);
  }
}

function drawEstimate() {
  const { estimate } = state;
  for (const [name, { label, bar, number }] of bars) {
    const p = estimate?.emotions?.[name];
    label.classList.toggle("top", p !== undefined && name === estimate.top);
    bar.style.transform = `scaleX(${p ?? 0})`;
    put(number, p === undefined ? "-" : p.toFixed(2));
  }
  const [strong, span] = at("top").children;
  put(strong, estimate ? estimate.top ?? nothingPerceived(estimate) : "");
  put(span, [estimate?.sentiment ? `sentiment ${signed(estimate.sentiment.value)}` : "", disagreement(estimate?.modalities)].filter(Boolean).join(" · "));
  drawModalities(estimate?.modalities);
  drawGraphs(estimate?.graph);
  if (estimate) measureDelay(estimate);
}

function drawModalities(modalities) {
  const leader = Object.entries(modalities ?? {}).filter(([, one]) => one.present).sort(([, a], [, b]) => b.influence - a.influence)[0]?.[0];
  for (const [key, row] of rows) {
    const one = modalities?.[key], [, is, age, influence, alone] = row.cells;
    row.className = one?.present ? (key === leader ? "leads" : "") : "away";
    is.className = one?.present ? "present" : "absent";
    put(is, !one ? "-" : one.present ? "● present" : one.late ? "◌ behind" : `○ ${one.far ? "too far away" : whyAbsent(key)}`);
    put(age, one?.age_s == null ? "-" : `${one.age_s.toFixed(1)} s`);
    put(influence, one?.influence == null ? "-" : percent(one.influence));
    put(alone, one?.emotions == null ? "-" : `${strongest(one.emotions)} ${percent(one.emotions[strongest(one.emotions)])}`);
  }
}

const percent = (share) => `${Math.round(100 * share)} %`;
const strongest = (emotions) => Object.keys(emotions).reduce((a, b) => (emotions[b] > emotions[a] ? b : a));

/** "happy words, angry voice" where channels that are sure of themselves say different things. */
function disagreement(modalities) {
  const sure = Object.entries(modalities ?? {}).filter(([, one]) => one.emotions && one.emotions[strongest(one.emotions)] >= SURE);
  const said = new Set(sure.map(([, one]) => strongest(one.emotions)));
  return said.size > 1 ? sure.map(([key, one]) => `${strongest(one.emotions)} ${MODALITIES[key]}`).join(", ") : "";
}

function nothingPerceived({ modalities }) {
  const late = Object.values(modalities).some((one) => one.late);
  return late ? "the machine is behind" : "nobody seen or heard";
}

function whyAbsent(modality) {
  const [device] = WORKERS[modality], own = state.sources[device];
  if (!state.viewing && own && own.state !== "on") {
    const name = device === "video" ? "camera" : "microphone";
    return own.reason.includes(name) ? own.reason.split(":")[0] : `${name}: ${own.reason}`;
  }
  for (const name of WORKERS[modality]) {
    const status = state.statuses.get(name);
    if (!status) return !state.viewing || state.picture ? "starting" : modality === "vision" ? "no camera" : "no microphone";
    if (["failed", "restarting", "paused"].includes(status.state)) return status.reason || status.state;
    if (status.state === "ended") return "ended";
  }
  return WHY_ABSENT[modality];
}

let measured = null;

function measureDelay(estimate) {
  const { present, age_s: age } = estimate.modalities.vision;
  if (state.viewing || !state.clock || !present || measured === estimate) return;
  measured = estimate;
  const capturedMs = (state.estimateEnd - age - state.clock.offset) * 1000;
  delays.push(performance.now() - capturedMs);
  delays.splice(0, delays.length - DELAYS);
}

function drawLevel() {
  at("microphone").style.setProperty("--level", Math.min(1, Math.sqrt(state.level)).toFixed(2));
}

function drawHealth() {
  const { estimate, arrivals, broker } = state, parts = [], wrong = [];
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
    if (["failed", "restarting", "behind", "late"].includes(how) && !(worker in state.sources)) wrong.push(`${worker} ${how}: ${reason}`);
  for (const { what, count, reason } of state.refused.values())
    wrong.push(`${count} ${{ video: "pictures", audio: "blocks of sound", text: "messages" }[what]} were refused: ${reason}`);
  if (state.lostSoundS) wrong.push(`${state.lostSoundS.toFixed(1)} s of sound were lost while the connection was away`);
  put(at("health"), parts.join(" · "));
  put(at("wrong"), wrong.join("\n"));
}

const median = (values) => values.toSorted((a, b) => a - b)[values.length >> 1];
