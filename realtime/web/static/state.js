// What the page knows. Messages change it and name the parts that must be drawn again; draw.js draws those, once a frame.

export const EMOTIONS = ["neutral", "happy", "sad", "angry", "fear", "disgust", "surprise"];
export const MODALITIES = { vision: "face", audio: "voice", text: "words" };
export const SPAN_S = 60;
const WORDS = 80;
const GAP_S = 1;
const PAUSE_S = 0.8; // silence that ends a sentence

/** What is known of one session, and forgotten with it. */
const nothing = () => ({
  picture: null, pictureAt: 0, face: null, faceAt: 0, estimate: null, estimateEnd: 0, activations: null, final: [], partial: [],
  statuses: new Map(), refused: new Map(), missed: 0, lostSoundS: 0,
  history: [[], [], [], []], // x and three series, as uPlot takes them
  historyStart: null, arrivals: [],
  clock: null, // {offset, rtt}: stream time = page time + offset
  level: 0, // loudest sample of the microphone's last block, 0 to 1
});

export const state = {
  ...nothing(),
  viewing: true, // false: the page shows its visitor, not what the server sees
  own: null, // a visitor's video element
  sources: {}, // of a visitor: {video: {state, reason}, audio: ...}
  atoms: 0, broker: "", ended: false,
  dirty: new Set(),
};

export function touch(...parts) {
  for (const part of parts) state.dirty.add(part);
}

export function forget() {
  state.picture?.close();
  Object.assign(state, nothing());
  touch("picture", "estimate", "plot", "words", "atoms", "level", "health");
}

export function estimated(estimate, end) {
  [state.estimate, state.estimateEnd] = [estimate, end];
  state.historyStart ??= end;
  const x = end - state.historyStart, last = state.history[0].at(-1);
  if (x - last > GAP_S) { // the connection was cut: no line over what nobody knows
    append(last + GAP_S / 2, null, null, null);
    state.arrivals = [];
  }
  append(x, estimate.sentiment?.value ?? null, estimate.valence, estimate.arousal);
  state.arrivals.push(performance.now());
  state.arrivals.splice(0, state.arrivals.length - 50);
  const first = state.history[0].findIndex((t) => t >= x - SPAN_S);
  if (first > 0) state.history.forEach((column) => column.splice(0, first));
  if (estimate.modalities.text.present) judge(estimate.modalities.text, end);
  touch("estimate", "plot", "words", "atoms", "health");
}

/** The newest sentence that the words' own estimate has read takes its sentiment, until the next one begins. */
function judge({ sentiment, age_s: age }, end) {
  let at = state.final.findLastIndex((word) => word.end <= end - age + 0.1);
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
