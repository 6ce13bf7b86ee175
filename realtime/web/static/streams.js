// The page of all streams at a broker: a card each, with what it says now and its last hour. Told by server-sent events.

import { at, put } from "./dom.js";
import { drawBand, shares } from "./draw-band.js";
import { MODALITIES, percent, signed, SIGNS } from "./emotions.js";
import { fromServer, t } from "./language.js";

const SILENT_S = 5; // a stream that says nothing for so long does not say what is
const CHANNELS = { f: MODALITIES.vision, v: MODALITIES.audio, w: MODALITIES.text };
const STATUS = { stopped: t("has ended"), offline: t("connection lost") };
const BROKEN = ["failed", "restarting", "late", "paused"];

const streams = new Map(); // by name: {status, heard, newest, workers, hour, card}
let slotS = 10, slots = 360, ahead = 0; // seconds by which the server's clock is ahead of this one's
let drawn = new Set();

const events = new EventSource(`streams/events${location.search}`);
const told = (name, take) => events.addEventListener(name, ({ data }) => take(JSON.parse(data)));

told("hours", ({ broker, slot_s, slots: most, hours }) => {
  [slotS, slots] = [slot_s, most];
  put(at("broker"), broker);
  for (const one of streams.values()) one.card.remove();
  streams.clear();
  for (const [name, hour] of Object.entries(hours)) of(name).hour = hour;
});
told("slot", (closed) => {
  for (const [name, slot] of Object.entries(closed)) {
    const { hour } = of(name);
    hour.push(slot);
    if (hour.length > slots) hour.shift();
    drawn.delete(name);
  }
});
told("now", ({ connected, t: serverS, streams: changed, gone }) => {
  ahead = serverS - Date.now() / 1000;
  put(at("connection"), connected ? "" : t("the broker is away; trying again"));
  at("connection").className = connected ? "" : "bad";
  for (const [name, one] of Object.entries(changed)) Object.assign(of(name), one);
  for (const name of gone) {
    streams.get(name)?.card.remove();
    streams.delete(name);
  }
  draw();
});
told("ended", () => {
  events.close();
  lost(t("the page's server has ended"));
});
events.onerror = () => lost(events.readyState === EventSource.CLOSED ? t("the server does not answer; load the page again") : t("connection lost; trying again"));

function lost(why) {
  put(at("connection"), why);
  at("connection").className = "bad";
}

function of(name) {
  if (!streams.has(name)) {
    const card = at("stream").content.cloneNode(true).firstElementChild;
    put(card.querySelector("h2"), name);
    card.setAttribute("aria-label", name);
    streams.set(name, { status: null, heard: null, newest: null, workers: {}, hour: [], card });
    const after = [...streams].filter(([other]) => other > name).sort(([a], [b]) => (a < b ? -1 : 1))[0];
    at("streams").insertBefore(card, after?.[1].card ?? null);
  }
  return streams.get(name);
}

function draw() {
  at("none").hidden = streams.size > 0;
  for (const [name, one] of streams) drawOne(name, one);
}

function drawOne(name, { status, heard, newest, workers, hour, card }) {
  const part = (of) => card.querySelector(of), silentS = heard === null ? Infinity : Date.now() / 1000 + ahead - heard;
  const lives = status !== "stopped" && status !== "offline" && silentS < SILENT_S, now = lives ? newest : null;
  card.classList.toggle("away", !lives);
  put(part(".how"), lives ? t("live") : STATUS[status] ?? (heard === null ? t("silent") : t("silent for {time}", { time: span(silentS) })));
  put(part(".sign"), now?.e ? SIGNS[now.e] : "");
  part(".sign").style.color = now?.e ? `var(--${now.e})` : "";
  put(part("strong"), now ? t(now.e ?? "nobody seen or heard") : "–");
  put(part(".sure"), now?.e ? t("{share} sure", { share: percent(now.p) }) : "");
  put(part(".channels"), now?.e ? `${[...now.m].map((letter) => CHANNELS[letter]).join(", ")} · ${t("valence")} ${signed(now.va)} · ${t("arousal")} ${signed(now.ar)}` : "");
  put(part(".bad"), Object.entries(workers).filter(([, [state]]) => lives && BROKEN.includes(state)).map(([worker, [state, reason]]) => `${t(worker)} ${t(state)}${reason ? `: ${fromServer(reason)}` : ""}`).join("\n"));
  if (drawn.has(name) && part("canvas").width > 1) return;
  drawn.add(name);
  const from = slots - hour.length;
  const spans = hour.flatMap(([top, share], i) => (top ? [{ start: (from + i) * slotS, end: (from + i + 1) * slotS, top, share }] : []));
  drawBand(part("canvas"), spans, 0, slots * slotS);
  const told = t("last hour: {shares}", { shares: shares(spans) });
  put(part(".hour"), told);
  part("canvas").setAttribute("aria-label", told);
}

const span = (s) => (s < 90 ? `${Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`);

function again() {
  drawn = new Set();
  draw();
}

setInterval(draw, 1000); // silence is told by nobody
new ResizeObserver(again).observe(at("streams"));
for (const query of ["(prefers-color-scheme: dark)", "(forced-colors: active)"]) matchMedia(query).addEventListener("change", again);
