// Who teaches whom: the edges of the two distillation graphs, as wide as they are strong.

import { at } from "./dom.js";
import { MODALITIES } from "./emotions.js";
import { t } from "./language.js";

const NODES = { vision: [110, 35], audio: [185, 155], text: [35, 155] };
const SPACES = ["homo", "hetero"];

const paths = {}; // by space: {edge: path}

export function buildGraphs() {
  for (const space of SPACES) paths[space] = buildGraph(at(space));
}

export function drawGraphs(graphs) {
  for (const space of SPACES) {
    const edges = graphs?.[space] ?? {};
    for (const [edge, path] of Object.entries(paths[space])) path.setAttribute("stroke-width", (14 * (edges[edge] ?? 0)).toFixed(1));
    const strongest = Object.entries(edges).sort(([, a], [, b]) => b - a)[0];
    at(space).setAttribute("aria-label", strongest ? t("strongest: {edge}", { edge: `${strongest[0]} ${strongest[1].toFixed(2)}` }) : t("nothing yet"));
  }
}

function buildGraph(svg) {
  const shape = (name, attributes) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    svg.append(made);
    return made;
  };
  const edges = {};
  for (const source in NODES) for (const target in NODES) if (source !== target)
    edges[`${source}->${target}`] = shape("path", { d: edgePath(source, target), stroke: `var(--${source})`, "stroke-width": 0 });
  for (const [key, [cx, cy]] of Object.entries(NODES)) {
    shape("circle", { cx, cy, r: 26, stroke: `var(--${key})` });
    shape("text", { x: cx, y: cy }).textContent = MODALITIES[key];
  }
  return edges;
}

function edgePath(source, target) {
  const [x0, y0] = NODES[source], [x1, y1] = NODES[target];
  const [dx, dy] = [x1 - x0, y1 - y0], length = Math.hypot(dx, dy), [ux, uy] = [dx / length, dy / length];
  const [sx, sy, ex, ey] = [x0 + 30 * ux, y0 + 30 * uy, x1 - 30 * ux, y1 - 30 * uy];
  // Each of a pair bends to its own side.
  return `M${sx},${sy} Q${(sx + ex) / 2 - 22 * uy},${(sy + ey) / 2 + 22 * ux} ${ex},${ey}`;
}
