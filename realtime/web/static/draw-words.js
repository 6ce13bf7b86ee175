// What was said. Final words keep their place in the page; only what is still heard is written again.

import { at, put } from "./dom.js";
import { state } from "./state.js";

const SHOWN = 60;

const [none, final, partial] = at("words").children;
const spans = new Map(); // by final word

export function drawWords() {
  const shown = state.final.slice(-SHOWN), kept = new Set(shown);
  for (const [word, span] of spans) if (!kept.has(word)) {
    span.remove();
    spans.delete(word);
  }
  for (const word of shown) {
    if (!spans.has(word)) {
      const span = document.createElement("span");
      span.textContent = `${word.text} `;
      final.append(span);
      spans.set(word, span);
    }
    const span = spans.get(word);
    if (word.sentiment !== undefined) span.style.color = tint(word.sentiment);
  }
  put(partial, state.partial.map((word) => word.text).join(" "));
  none.hidden = shown.length + state.partial.length > 0;
}

function tint(sentiment) {
  if (Math.abs(sentiment) < 0.25) return "";
  const strength = Math.min(1, Math.abs(sentiment) / 2) * 60;
  return `color-mix(in srgb, var(${sentiment > 0 ? "--good" : "--bad"}) ${Math.round(40 + strength)}%, var(--ink))`;
}
