// What the page knows. Messages change it and name the parts that must be drawn again; draw.js draws those, once a frame.

export const SPAN_S = 60;
const GAP_S = 1; // longer without an estimate: the connection was cut
const WORDS = 80;
const SLACK_S = 0.1;
const PAUSE_S = 0.8; // silence that ends a sentence

/** What estimates have said, of the stream or of one person. */
const reading = () => ({
  estimate: null, estimateEnd: 0, disagreement: "",
  history: [[], [], [], []], // x and three series, as uPlot takes them
  tops: [], // of the last minute: {start, end, top, share}
  historyStart: null,
});

/** What is known of one session, and forgotten with it. What is read of who is shown lies in it as of the stream. */
const nothing = () => ({
  ...reading(), stream: reading(),
  people: [], // in view, where several are followed: {id, since, box}
  readings: new Map(), // by person
  speaker: null, speech: "nobody", // who speaks: a person; "person", "outside" the picture, "overlap", or "nobody"
  chosen: null, // the person whom somebody wants to look at
  picture: null, pictureAt: 0, face: null, faceAt: 0, lasting: "", activations: null, final: [], partial: [],
  statuses: new Map(), refused: new Map(), missed: 0, lostSoundS: 0,
  arrivals: [],
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

/** Whose estimates are shown: of several people the one chosen, or the first; else null, the stream's own. */
export function shown() {
  const { people, chosen } = state;
  if (people.length < 2) return null;
  return (people.find(({ id }) => id === chosen) ?? people[0]).id;
}

export function choose(id) {
  state.chosen = id;
  show();
}

function show() {
  const id = shown();
  Object.assign(state, id === null ? state.stream : state.readings.get(id) ?? reading());
  touch("picture", "answer", "plot", "timeline", "model");
}

/** people: in view, by number; who leaves is forgotten. */
export function gathered({ people, speaker, speech }) {
  [state.people, state.speaker, state.speech] = [people.toSorted((a, b) => a.id - b.id), speaker, speech];
  for (const id of state.readings.keys()) if (!people.some((one) => one.id === id)) state.readings.delete(id);
  show();
}

export function estimated({ data: estimate, end, disagreement }) {
  const { person = null } = estimate;
  if (person !== null && !state.readings.has(person)) state.readings.set(person, reading());
  const one = person === null ? state.stream : state.readings.get(person);
  Object.assign(one, { estimate, estimateEnd: end, disagreement });
  one.historyStart ??= end;
  const x = end - one.historyStart, last = one.history[0].at(-1), cut = x - last > GAP_S;
  if (cut) append(one, last + GAP_S / 2, null, null, null); // no line over what nobody knows
  append(one, x, estimate.sentiment?.value ?? null, estimate.valence, estimate.arousal);
  topped(one, x);
  const first = one.history[0].findIndex((t) => t >= x - SPAN_S);
  if (first > 0) one.history.forEach((column) => column.splice(0, first));
  const { text } = estimate.modalities;
  if (text.present && (person !== null || !state.people.length)) judge(text, end, person);
  if (person === null) {
    if (cut) state.arrivals = [];
    state.arrivals.push(performance.now());
    state.arrivals.splice(0, state.arrivals.length - 50);
    touch("words", "health", "position");
  }
  if (person === shown()) {
    Object.assign(state, one);
    touch("answer", "plot", "timeline", "words", "model");
  } else touch("answer", "picture");
}

function topped({ tops, estimate: { top, emotions } }, x) {
  const before = tops.at(-1);
  if (before && x - before.start <= GAP_S) before.end = x;
  if (top) tops.push({ start: x, end: x, top, share: emotions[top] });
  while (tops.length && tops[0].end < x - SPAN_S) tops.shift();
}

/** The newest sentence that the words' own estimate has read takes its sentiment, until the next one begins. */
function judge({ sentiment, age_s: age }, end, person) {
  const newest = end - age, final = state.final.filter((word) => word.person === person);
  let at = final.findLastIndex((word) => word.end <= newest + SLACK_S);
  if (at < 0 || newest - final[at].end > SLACK_S) return; // it has read on, into what is not final yet
  for (let next = null; at >= 0; at -= 1) {
    const word = final[at];
    if (next && (/[.?!…]["')”’]*$/.test(word.text) || next.start - word.end > PAUSE_S)) break;
    word.sentiment = sentiment;
    next = word;
  }
}

function append({ history }, ...values) {
  history.forEach((column, i) => column.push(values[i]));
}

export function heard({ final, partial }) {
  const made = ([text, start, end, overlapped]) => ({ text, start, end, overlapped, sentiment: undefined, person: null });
  state.final.push(...final.map(made));
  state.final.splice(0, state.final.length - WORDS);
  state.partial = partial.map(made);
  touch("words");
}

/** words: of the last seconds, that a person said. */
export function said({ person, words }) {
  for (const word of state.final)
  {
    const same = words.find(([text, start]) => text === word.text && Math.abs(start - word.start) < SLACK_S);
    if (same) Object.assign(word, { person, overlapped: same[3] ?? false });
  }
  touch("words");
}
