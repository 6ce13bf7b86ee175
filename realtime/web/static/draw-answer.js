// The answer: the emotion that has lasted, how sure it is, and what each channel says alone, or why it says nothing.

import { at, put } from "./dom.js";
import { EMOTIONS, MODALITIES, percent, SIGNS, strongest } from "./emotions.js";
import { fromServer, t } from "./language.js";
import { shown, state } from "./state.js";

const NOT_PERCEIVED = { vision: t("no face in sight"), audio: t("no voice"), text: t("no words") };
const PERCEIVED = { vision: t("seen"), audio: t("heard"), text: t("read") };
const SILENT = { another: t("another speaks"), outside: t("speech from outside the picture"), overlap: t("several speak at once") };
const SENDERS = { vision: { device: "video", name: "camera", worker: "face" }, audio: { device: "audio", name: "microphone", worker: "voice" },
  text: { device: "audio", name: "microphone", worker: "transcript" } };
const BROKEN = ["failed", "restarting", "paused"];

const bars = new Map(); // by emotion: its label, bar and number
const cards = new Map(); // by modality: its card

export function buildAnswer() {
  for (const name of EMOTIONS) {
    at("emotions").insertAdjacentHTML("beforeend",
      `<dt><i class="sign" aria-hidden="true">${SIGNS[name]}</i> ${t(name)}</dt><dd class="bar"><i></i></dd><dd class="number">-</dd>`);
    const [label, bar, number] = [...at("emotions").children].slice(-3);
    label.firstChild.style.color = bar.firstChild.style.background = `var(--${name})`;
    bars.set(name, { label, bar: bar.firstChild, number });
  }
  for (const [key, name] of Object.entries(MODALITIES)) {
    at("channels").insertAdjacentHTML("beforeend", `<li class="card" data-name="${key}"><h3>${name}</h3><p class="absent">-</p>
      <p class="alone"></p><p class="influence"><span></span><span class="meter"><i></i></span></p></li>`);
    cards.set(key, at("channels").lastElementChild);
  }
}

export function drawAnswer() {
  const { estimate } = state;
  for (const [name, { label, bar, number }] of bars) {
    const p = estimate?.emotions?.[name];
    label.classList.toggle("top", p !== undefined && name === estimate.top);
    bar.style.transform = `scaleX(${p ?? 0})`;
    put(number, p === undefined ? "-" : percent(p));
  }
  drawTop(estimate);
  drawCards(estimate?.modalities);
}

function drawTop(estimate) {
  const [who, sign, strong, sure, differs] = at("top").children, top = estimate?.top, person = shown();
  put(who, person === null ? "" : t("Person {number}", { number: person }));
  put(sign, top ? SIGNS[top] : "");
  sign.style.color = top ? `var(--${top})` : "";
  put(strong, estimate ? (top ? t(top) : nothingPerceived(estimate)) : "…");
  put(sure, top ? t("{share} sure", { share: percent(estimate.emotions[top]) }) : "");
  put(differs, state.disagreement.split(", ").map(sides).join(", "));
  put(at("announced"), t(state.lasting));
}

function drawCards(modalities) {
  const there = Object.entries(modalities ?? {}).filter(([, one]) => one.present), isKnown = there.every(([, one]) => one.influence !== null);
  const leader = isKnown ? there.sort(([, a], [, b]) => b.influence - a.influence)[0]?.[0] : undefined;
  for (const [key, card] of cards) {
    const one = modalities?.[key], [, is, alone, influence] = card.children;
    card.className = `card ${one?.present ? (key === leader ? "leads" : "") : "away"}`;
    is.className = one?.present ? "present" : "absent";
    put(is, !one ? "-" : one.present ? (one.covered ? `◐ ${t("mouth covered")}` : `● ${PERCEIVED[key]}`) : one.late ? `◌ ${t("behind")}` : `○ ${one.far ? t("too far away") : one.unread ? t("not understood") : whyAbsent(key)}`);
    const said = one?.emotions && strongest(one.emotions);
    put(alone, said ? `${SIGNS[said]} ${t(said)} ${percent(one.emotions[said])}` : "");
    influence.hidden = one?.influence == null;
    put(influence.firstChild, influence.hidden ? "" : t("influence {share}", { share: percent(one.influence) }));
    influence.lastChild.firstChild.style.transform = `scaleX(${one?.influence ?? 0})`;
  }
}

function nothingPerceived({ modalities }) {
  const late = Object.values(modalities).some((one) => one.late);
  return late ? t("the machine is behind") : t("nobody seen or heard");
}

/** What is missing: the device, who looks at what it gives, or somebody to be perceived. */
function whyAbsent(modality) {
  const { device, name, worker } = SENDERS[modality], { statuses } = state, own = state.sources[device];
  if (!state.viewing && own && own.state !== "on") return own.reason.includes(name) ? t(own.reason).split(":")[0] : `${t(name)}: ${t(own.reason)}`;
  const silent = modality !== "vision" && SILENT[state.estimate?.silent];
  if (silent) return silent;
  for (const one of [device, worker]) {
    const status = statuses.get(one);
    if (BROKEN.includes(status?.state)) return status.reason ? fromServer(status.reason) : t(status.state);
    if (status?.state === "ended" && !state.recorded) return t("ended");
  }
  if (state.recorded) return NOT_PERCEIVED[modality];
  if (!statuses.size) return t("starting");
  if (!statuses.has(device)) return t(`no ${name}`);
  if (modality === "text" && !statuses.has(worker) && statuses.has("voice")) return t("not recognised here");
  return statuses.has(worker) ? NOT_PERCEIVED[modality] : t("starting");
}

/** "happy words": who is sure of what. */
function sides(one) {
  const [emotion, channel] = one.split(" ");
  return channel ? t("{emotion} {channel}", { emotion: t(emotion), channel: t(channel) }) : one;
}
