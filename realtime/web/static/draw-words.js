// What was said. Final words keep their place in the page; only what is still heard is written again.

import { at, put } from "./dom.js";
import { colourOf } from "./draw-people.js";
import { locale, t } from "./language.js";
import { state } from "./state.js";

const SHOWN = 60;
const PLAIN = 0.25; // sentiment nearer to 0 is none
const UNREAD = t("Speech is heard, and not understood: another language, singing, or too unclear.");
const UNTESTED = t("These words are shown, and not read: the model was not tested in their language.");
const names = new Intl.DisplayNames([locale], { type: "language", fallback: "code" });

const [none, final, partial] = at("words").children;
const spans = new Map(); // by final word

export function drawWords() {
  const shown = state.final.slice(-SHOWN), kept = new Set(shown);
  for (const [word, span] of spans) if (!kept.has(word)) {
    span.remove();
    spans.delete(word);
  }
  let who = null; // each change of speaker is told
  for (const word of shown) {
    if (!spans.has(word)) {
      const span = document.createElement("span");
      span.textContent = `${word.text} `;
      final.append(span);
      spans.set(word, span);
    }
    const span = spans.get(word);
    if (word.person !== null && word.person !== who) span.dataset.who = who = word.person;
    else delete span.dataset.who;
    span.style.setProperty("--who", word.person === null ? "" : colourOf(word.person));
    span.toggleAttribute("data-overlapped", word.overlapped ?? false);
    span.title = word.overlapped ? t("several speak at once") : "";
    if (word.sentiment !== undefined) show(span, word.sentiment);
  }
  put(partial, state.partial.map((word) => word.text).join(" "));
  const { language, transcript, modalities } = state.stream.estimate ?? {};
  put(at("language"), language ? names.of(language.code) : "");
  put(at("unread"), modalities?.text.unread ? (transcript ? UNTESTED : UNREAD) : "");
  none.hidden = shown.length + state.partial.length > 0;
}

/** Underlined as the heading says, for those who do not tell the colours apart. */
function show(span, sentiment) {
  const name = Math.abs(sentiment) < PLAIN ? "" : sentiment > 0 ? "positive" : "negative";
  span.className = name;
  const strength = Math.min(1, Math.abs(sentiment) / 2) * 60;
  span.style.color = name && `color-mix(in srgb, var(--${name}) ${Math.round(40 + strength)}%, var(--ink))`;
}
