// Emotions and channels as people are shown them: a name, a sign that needs no colour, and the colour of style.css.

import { t } from "./language.js";

export const SIGNS = { neutral: "▬", happy: "▲", sad: "▼", angry: "✖", fear: "◆", disgust: "■", surprise: "●" };
export const EMOTIONS = Object.keys(SIGNS);
export const MODALITIES = { vision: t("face"), audio: t("voice"), text: t("words") };

/** A colour of style.css, as it is now: light, dark or forced. */
export const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

export const percent = (share) => `${Math.round(100 * share)} %`;
export const strongest = (shares) => Object.keys(shares).reduce((a, b) => (shares[b] > shares[a] ? b : a));
export const signed = (value) => `${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}`;
export const minutes = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
