// What the page knows. Messages change it and name the parts that must be drawn again; draw.js draws those, once a frame.

export const SPAN_S = 60;
export const GAP_S = 1; // longer without an estimate: the connection was cut
const WORDS = 80;
const SLACK_S = 0.1;
const PAUSE_S = 0.8; // silence that ends a sentence

/** What is known of one session, and forgotten with it. */
const nothing = () => ({
  picture: null, pictureAt: 0, face: null, faceAt: 0, estimate: null, estimateEnd: 0, disagreement: "", lasting: "", activations: null, final: [], partial: [],
  statuses: new Map(), refused: new Map(), missed: 0, lostSoundS: 0,
  history: [[], [], [], []], // x and three series, as uPlot takes them
  tops: [], // of the last minute: {start, end, top, share}
  historyStart: null, arrivals: [],
  clock: null, // {offset, rtt}: stream time = page time + offset
  level: 0, // loudest sample of the microphone's last block, 0 to 1
});

export const state = {
  ...nothing(),
  viewing: true, // false: the page shows its visitor, not what the server sees
  own: null, // a visitor's video element
  sources: {}, // of a visitor: {video: {state, reason}, audio: ...}
  recorded: false, // what is viewed is a recording
  choosing: false, // whether the page may say which person is read
  mirror: false,
  atoms: 0, broker: "", ended: false,
  dirty: new Set(),
};

export function touch(...parts) {
  for (const part of parts) state.dirty.add(part);
}

export function forget() {
  state.picture?.close();
  Object.assign(state, nothing());
  touch("picture", "answer", "plot", "timeline", "words", "model", "level", "health");
}

export function estimated({ data: estimate, end, disagreement }) {
  [state.estimate, state.estimateEnd, state.disagreement] = [estimate, end, disagreement];
  state.historyStart ??= end;
  const x = end - state.historyStart, last = state.history[0].at(-1);
  if (x - last > GAP_S) { // the connection was cut: no line over what nobody knows
    append(last + GAP_S / 2, null, null, null);
    state.arrivals = [];
  }
  append(x, estimate.sentiment?.value ?? null, estimate.valence, estimate.arousal);
  state.arrivals.push(performance.now());
  state.arrivals.splice(0, state.arrivals.length - 50);
  topped(estimate, x);
  const first = state.history[0].findIndex((t) => t >= x - SPAN_S);
  if (first > 0) state.history.forEach((column) => column.splice(0, first));
  const { text } = estimate.modalities;
  if (text.present) judge(text, end);
  touch("answer", "plot", "timeline", "words", "model", "health", "position");
}

function topped({ top, emotions }, x) {
  const { tops } = state, before = tops.at(-1);
  if (before && x - before.start <= GAP_S) before.end = x;
  if (top) tops.push({ start: x, end: x, top, share: emotions[top] });
  while (tops.length && tops[0].end < x - SPAN_S) tops.shift();
}

/** The newest sentence that the words' own estimate has read takes its sentiment, until the next one begins. */
function judge({ sentiment, age_s: age }, end) {
  const newest = end - age;
  let at = state.final.findLastIndex((word) => word.end <= newest + SLACK_S);
  if (at < 0 || newest - state.final[at].end > SLACK_S) return; // it has read on, into what is not final yet
  for (let next = null; at >= 0; at -= 1) {
    const word = state.final[at];
    if (next && (/[.?!…]["')”’]*$/.test(word.text) || next.start - word.end > PAUSE_S)) break;
    word.sentiment = sentiment;
    next = word;
  }
}

function append(...values) {
  state.history.forEach((column, i) => column.push(values[i]));
}

export function heard({ final, partial }) {
  const made = ([text, start, end]) => ({ text, start, end, sentiment: undefined });
  state.final.push(...final.map(made));
  state.final.splice(0, state.final.length - WORDS);
  state.partial = partial.map(made);
  touch("words");
}
