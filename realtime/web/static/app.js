// The page of one stream. Pictures and estimates come over one WebSocket; everything is drawn once a display frame.

const EMOTIONS = ["neutral", "happy", "sad", "angry", "fear", "disgust", "surprise"];
const MODALITIES = { vision: "face", audio: "voice", text: "words" };
const WHY_ABSENT = { vision: "no face in sight", audio: "no voice", text: "no words" };
const SPAN_S = 60;
const RETRY_MS = [250, 500, 1000, 2000];

const at = (id) => document.getElementById(id);
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const state = {
  picture: null, pictureAt: 0, face: null, estimate: null, words: [], partial: [], statuses: new Map(), broker: "",
  history: [[], [], [], []], arrivals: [], missed: 0, ended: false, dirty: new Set(),
};

// --- connection -------------------------------------------------------------------------------------------------

let failures = 0;
let socket = null;

function connect() {
  const address = new URL("stream", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  address.search = location.search;
  socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { failures = 0; state.ended = false; say("live"); };
  socket.onmessage = ({ data }) => (typeof data === "string" ? told(JSON.parse(data)) : pictured(data));
  socket.onclose = ({ code, reason }) => {
    if (state.ended) return say("the run has ended");
    if (code >= 4400) return say(reason, true);
    say("connection lost; trying again", true);
    setTimeout(connect, RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)]);
  };
}

function say(text, bad = false) {
  at("connection").textContent = text;
  at("connection").className = bad ? "bad" : "";
}

async function pictured(buffer) {
  const bitmap = await createImageBitmap(new Blob([buffer.slice(8)], { type: "image/jpeg" }));
  state.picture?.close();
  state.picture = bitmap;
  state.pictureAt = performance.now();
  state.dirty.add("picture");
}

function told(message) {
  const kinds = {
    hello: () => { at("stream").textContent = message.stream; state.broker = message.broker; at("marks").hidden = !message.marking; },
    marks: () => { at("marked").textContent = message.line.split("\n").at(-1); },
    estimate: () => estimated(message.data, message.end),
    face: () => { state.face = message; state.dirty.add("picture"); },
    words: () => heard(message),
    status: () => { state.statuses.set(message.worker, message); state.dirty.add("health"); },
    broker: () => { state.broker = message.state; state.dirty.add("health"); },
    missed: () => { state.missed = message.count; state.dirty.add("health"); },
    ended: () => { state.ended = true; say("the run has ended"); },
  };
  kinds[message.type]?.();
}

function estimated(estimate, end) {
  state.estimate = estimate;
  state.arrivals.push(performance.now());
  state.arrivals.splice(0, state.arrivals.length - 50);
  const values = [end, estimate.sentiment?.value ?? null, estimate.valence, estimate.arousal];
  state.history.forEach((column, i) => column.push(values[i]));
  const first = state.history[0].findIndex((t) => t >= end - SPAN_S);
  if (first > 0) state.history.forEach((column) => column.splice(0, first));
  // A word keeps the sentiment of the first estimate after it was said.
  for (const word of state.words) if (word.sentiment === undefined && word.end <= end) word.sentiment = estimate.sentiment?.value ?? 0;
  ["estimate", "words", "health"].forEach((part) => state.dirty.add(part));
}

function heard({ final, partial }) {
  const known = new Map(state.partial.map((word) => [word.text, word.sentiment]));
  const made = ([text, start, end]) => ({ text, start, end, sentiment: undefined });
  state.words.push(...final.map(made).map((word) => ({ ...word, sentiment: known.get(word.text) })));
  state.words.splice(0, state.words.length - 80);
  state.partial = partial.map(made);
  state.dirty.add("words");
}

// --- drawing ----------------------------------------------------------------------------------------------------

function build() {
  at("marks").querySelector("span").innerHTML = EMOTIONS.map((name, i) => `<button data-key="${i + 1}">${name}</button>`).join(" ");
  at("marks").addEventListener("click", ({ target }) => target.dataset.key && socket.readyState === 1 && socket.send(target.dataset.key));
  const bars = at("emotions");
  for (const name of EMOTIONS) {
    bars.insertAdjacentHTML("beforeend",
      `<dt data-name="${name}">${name}</dt><dd class="bar"><i></i></dd><dd class="number">-</dd>`);
    bars.querySelector(`dt[data-name=${name}] + dd i`).style.background = `var(--${name})`;
  }
  for (const [key, name] of Object.entries(MODALITIES)) {
    at("modalities").tBodies[0].insertAdjacentHTML("beforeend",
      `<tr data-name="${key}"><th scope="row">${name}</th><td></td><td></td><td></td><td></td></tr>`);
  }
  for (const id of ["homo", "hetero"]) buildGraph(at(id));
}

const NODES = { vision: [110, 35], audio: [185, 155], text: [35, 155] };

function edgePath(source, target) {
  const [x0, y0] = NODES[source], [x1, y1] = NODES[target];
  const [dx, dy] = [x1 - x0, y1 - y0], length = Math.hypot(dx, dy), [ux, uy] = [dx / length, dy / length];
  const [sx, sy, ex, ey] = [x0 + 30 * ux, y0 + 30 * uy, x1 - 30 * ux, y1 - 30 * uy];
  // Each of a pair bends to its own side.
  return `M${sx},${sy} Q${(sx + ex) / 2 - 22 * uy},${(sy + ey) / 2 + 22 * ux} ${ex},${ey}`;
}

function buildGraph(svg) {
  const shape = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    svg.append(made);
    return made;
  };
  for (const source in NODES) for (const target in NODES) if (source !== target)
    shape("path", { d: edgePath(source, target), "data-edge": `${source}->${target}`, stroke: `var(--${source})` });
  for (const [key, [cx, cy]] of Object.entries(NODES)) {
    shape("circle", { cx, cy, r: 26, stroke: `var(--${key})` });
    shape("text", { x: cx, y: cy }).textContent = MODALITIES[key];
  }
}

let plot = null;

function buildPlot() {
  const axis = { stroke: css("--dim"), grid: { stroke: css("--line"), width: 1 }, ticks: { show: false } };
  const series = (label, colour, scale) => ({ label, stroke: css(colour), width: 2, scale, spanGaps: false, points: { show: false } });
  plot?.destroy();
  plot = new uPlot({
    width: at("plot").clientWidth, height: 190, cursor: { show: false }, legend: { live: false },
    scales: { x: { time: false }, s: { range: [-3, 3] }, v: { range: [-1, 1] } },
    axes: [{ ...axis, values: (_, ticks) => ticks.map((t) => `${Math.round(t)} s`) },
           { ...axis, scale: "s" }, { ...axis, scale: "v", side: 1, grid: { show: false } }],
    series: [{}, series("sentiment", "--ink", "s"), series("valence", "--vision", "v"), series("arousal", "--audio", "v")],
  }, state.history, at("plot"));
}

function drawPicture() {
  const canvas = at("picture"), context = canvas.getContext("2d"), { picture, face } = state;
  if (!picture) return;
  if (canvas.width !== picture.width || canvas.height !== picture.height) [canvas.width, canvas.height] = [picture.width, picture.height];
  const [w, h] = [canvas.width, canvas.height];
  context.drawImage(picture, 0, 0);
  at("nobody").hidden = true;
  if (!face?.box) return;
  const [x0, y0, x1, y1] = face.box;
  context.strokeStyle = "#ffffffcc";
  context.lineWidth = 2;
  context.strokeRect(x0 * w, y0 * h, (x1 - x0) * w, (y1 - y0) * h);
  const bytes = Uint8Array.from(atob(face.points), (c) => c.charCodeAt(0));
  const points = new Int16Array(bytes.buffer);
  const size = Math.max(1.5, w / 320);
  context.fillStyle = "#8be9fdd0";
  for (let i = 0; i < points.length; i += 2)
    context.fillRect((points[i] / 1e4) * w - size / 2, (points[i + 1] / 1e4) * h - size / 2, size, size);
}

function signed(value) { return `${value >= 0 ? "+" : "−"}${Math.abs(value).toFixed(2)}`; }

function drawEstimate() {
  const { estimate } = state;
  if (!estimate) return;
  for (const name of EMOTIONS) {
    const label = at("emotions").querySelector(`dt[data-name=${name}]`), p = estimate.emotions?.[name];
    label.classList.toggle("top", name === estimate.top);
    label.nextElementSibling.firstElementChild.style.transform = `scaleX(${p ?? 0})`;
    label.nextElementSibling.nextElementSibling.textContent = p === undefined ? "-" : p.toFixed(2);
  }
  const [strong, span] = at("top").children;
  const top = estimate.top ?? "nobody seen or heard";
  if (strong.textContent !== top) strong.textContent = top;
  const sentiment = estimate.sentiment ? `sentiment ${signed(estimate.sentiment.value)}` : "";
  if (span.textContent !== sentiment) span.textContent = sentiment;
  const leader = Object.entries(estimate.modalities).filter(([, m]) => m.present).sort(([, a], [, b]) => b.weight - a.weight)[0]?.[0];
  for (const row of at("modalities").tBodies[0].rows) {
    const key = row.dataset.name, one = estimate.modalities[key], cells = row.cells;
    row.className = one.present ? (key === leader ? "leads" : "") : "away";
    cells[1].textContent = one.present ? "● present" : `○ ${reason(key)}`;
    cells[1].className = one.present ? "present" : "absent";
    cells[2].textContent = one.age_s === null ? "-" : `${one.age_s.toFixed(1)} s`;
    cells[3].textContent = one.present ? one.weight.toFixed(2) : "-";
    cells[4].textContent = one.sentiment === null ? "-" : signed(one.sentiment);
  }
  for (const id of ["homo", "hetero"]) {
    const edges = estimate.graph[id], svg = at(id);
    for (const path of svg.querySelectorAll("path")) path.setAttribute("stroke-width", (14 * edges[path.dataset.edge]).toFixed(1));
    const strongest = Object.entries(edges).sort(([, a], [, b]) => b - a)[0];
    svg.setAttribute("aria-label", `strongest: ${strongest[0]} ${strongest[1].toFixed(2)}`);
  }
  plot?.setData(state.history);
}

const WORKER_OF = { vision: ["video", "face"], audio: ["audio", "voice"], text: ["audio", "transcript"] };

function reason(modality) {
  for (const name of WORKER_OF[modality]) {
    const status = state.statuses.get(name);
    if (!status) return modality === "vision" ? "no camera" : "no microphone";
    if (["failed", "restarting"].includes(status.state)) return status.reason || status.state;
    if (status.state === "ended") return "ended";
  }
  return WHY_ABSENT[modality];
}

function tint(sentiment) {
  if (sentiment === undefined || Math.abs(sentiment) < 0.25) return "";
  const strength = Math.min(1, Math.abs(sentiment) / 2) * 60;
  return `color-mix(in srgb, var(${sentiment > 0 ? "--good" : "--bad"}) ${Math.round(40 + strength)}%, var(--ink))`;
}

function drawWords() {
  const box = at("words"), all = [...state.words.map((w) => [w, ""]), ...state.partial.map((w) => [w, "partial"])].slice(-60);
  if (!all.length) return;
  box.replaceChildren(...all.flatMap(([word, kind]) => {
    const span = document.createElement("span");
    span.textContent = word.text;
    span.className = kind;
    span.style.color = tint(word.sentiment);
    return [span, " "];
  }));
}

function drawHealth() {
  const { estimate, arrivals, broker } = state, parts = [];
  if (arrivals.length > 1) parts.push(`${((arrivals.length - 1) / (arrivals.at(-1) - arrivals[0]) * 1000).toFixed(1)} estimates a second`);
  if (estimate) {
    const delay = estimate.latency_ms.capture_to_estimate;
    if (delay !== null) parts.push(`latency ${Math.round(delay)} ms`);
    parts.push(`${estimate.faces} ${estimate.faces === 1 ? "face" : "faces"}`);
    parts.push(`dropped ${estimate.dropped.video} frames, ${estimate.dropped.audio} blocks of sound`);
    parts.push(`model ${estimate.model.name} ${estimate.model.checkpoint}`);
  }
  if (state.missed) parts.push(`${state.missed} messages came too fast for this page`);
  if (broker) parts.push(`broker ${broker}`);
  const lines = [document.createTextNode(parts.join(" · "))];
  for (const status of state.statuses.values()) if (["failed", "restarting"].includes(status.state)) {
    const line = document.createElement("span");
    line.className = "bad";
    line.textContent = `${status.worker} ${status.state}: ${status.reason}`;
    lines.push(line);
  }
  at("health").replaceChildren(...lines);
}

const DRAW = { picture: drawPicture, estimate: drawEstimate, words: drawWords, health: drawHealth };

function frame() {
  for (const part of state.dirty) DRAW[part]();
  state.dirty.clear();
  if (state.pictureAt && performance.now() - state.pictureAt > 2000 && !state.ended) at("nobody").hidden = false;
  requestAnimationFrame(frame);
}

build();
buildPlot();
addEventListener("resize", buildPlot);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", buildPlot);
connect();
requestAnimationFrame(frame);
