// The people who are followed: a card each, with what they show now and who speaks; who is pressed is shown below.

import { at, put } from "./dom.js";
import { EMOTIONS, MODALITIES, percent, SIGNS } from "./emotions.js";
import { t } from "./language.js";
import { shown, state } from "./state.js";

const COLOURS = 6;
const SPEECH = { outside: t("speech from outside the picture"), overlap: t("several speak at once") };

const UNKNOWN_MS = 1000; // for so long it may not be known who speaks

const cards = new Map(); // by person
let [unknown, since] = ["nobody", 0];
let chosen = () => {};

/** look(id): somebody wants to look at a person. */
export function buildPeople(look) {
  chosen = look;
}

export const colourOf = (id) => `var(--person-${((id - 1) % COLOURS) + 1})`;

/** One line of a person: number, and what they show. */
export function inShort(id) {
  const { top, emotions } = state.readings.get(id)?.estimate ?? {};
  return `${id} ${top ? `${SIGNS[top]} ${t(top)} ${percent(emotions[top])}` : ""}${id === state.speaker ? ` · ${t("speaks")}` : ""}`;
}

export function drawPeople() {
  const { people, readings, speaker, speech } = state, several = people.length > 1;
  at("people-title").hidden = !several;
  if (speech !== unknown) [unknown, since] = [speech, performance.now()];
  put(at("people-title").lastElementChild, performance.now() - since > UNKNOWN_MS ? SPEECH[speech] ?? "" : "");
  for (const [id, card] of cards) if (!several || !people.some((one) => one.id === id)) {
    card.remove();
    cards.delete(id);
  }
  if (!several) return;
  for (const { id } of people) {
    if (!cards.has(id)) cards.set(id, made(id));
    const card = cards.get(id), button = card.firstElementChild, [number, sign, name, sure, how, bar] = button.children;
    const { estimate } = readings.get(id) ?? {}, top = estimate?.top;
    put(number, `${id}`);
    put(sign, top ? SIGNS[top] : "");
    sign.style.color = top ? `var(--${top})` : "";
    put(name, top ? t(top) : estimate ? t("nothing read") : "…");
    put(sure, top ? percent(estimate.emotions[top]) : "");
    put(how, id === speaker ? t("speaks") : channels(estimate));
    button.setAttribute("aria-pressed", id === shown());
    button.classList.toggle("speaks", id === speaker);
    [...bar.children].forEach((part, i) => { part.style.flexGrow = estimate?.emotions?.[EMOTIONS[i]] ?? 0; });
  }
}

function made(id) {
  const card = document.createElement("li");
  card.innerHTML = `<button class="someone"><b class="who"></b> <i class="sign" aria-hidden="true"></i> <strong></strong> <span class="sure"></span>
    <span class="how"></span><span class="shares" aria-hidden="true"></span></button>`;
  card.style.setProperty("--who", colourOf(id));
  for (const emotion of EMOTIONS) {
    const part = document.createElement("i");
    part.style.background = `var(--${emotion})`;
    card.querySelector(".shares").append(part);
  }
  card.firstElementChild.onclick = () => chosen(id);
  const after = [...cards.keys()].filter((other) => other > id).sort((a, b) => a - b)[0];
  at("people").insertBefore(card, cards.get(after) ?? null);
  return card;
}

const channels = (estimate) => Object.entries(MODALITIES).filter(([key]) => estimate?.modalities[key].present).map(([, name]) => name).join(", ");
