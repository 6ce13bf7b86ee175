// Texts in the browser's language. The page is written in English, and each other language has one file, static/languages/CODE.json,
// from the English text to its own; {name} stands for what is put in.

const OTHERS = ["de"];

const code = navigator.languages.map((one) => one.split("-")[0]).find((one) => one === "en" || OTHERS.includes(one)) ?? "en";
const texts = code === "en" ? {} : await (await fetch(`static/languages/${code}.json`)).json();

/** The text in the browser's language; one that has none there stays English. */
export function t(english, values = {}) {
  return (texts[english] ?? english).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** A sentence of the server in the browser's language: one with something put in is known by what stands around it. */
export function fromServer(english) {
  if (english in texts) return texts[english];
  for (const [pattern, text] of patterns()) {
    const found = pattern.exec(english);
    if (found) return text.replace(/\{(\w+)\}/g, (_, name) => found.groups[name]);
  }
  return english;
}

const FEWEST = 12; // characters that stand around, in a sentence that is known by them
let known = null;

function patterns() {
  return known ??= Object.entries(texts)
    .filter(([english]) => english.includes("{") && english.replace(/\{\w+\}/g, "").length >= FEWEST)
    .map(([english, text]) => [new RegExp(`^${english.replace(/[.*+?^$()|[\]\\]/g, "\\$&").replace(/\{(\w+)\}/g, "(?<$1>.+)")}$`), text]);
}

/** Code of the language that the page is written in. */
export const language = code;

/** Dates, and names of languages, as they are written there. */
export const locale = code === "en" ? "en-GB" : code;

document.documentElement.lang = code;
const written = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (written.nextNode()) {
  const node = written.currentNode, english = node.data.replace(/\s+/g, " ").trim();
  if (english in texts) node.data = node.data.replace(/\S.*\S|\S/s, t(english));
}
for (const node of document.querySelectorAll("[aria-label]")) node.setAttribute("aria-label", t(node.getAttribute("aria-label")));
