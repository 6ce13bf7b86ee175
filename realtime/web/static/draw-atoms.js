// Which atoms of the shared dictionary each modality is rebuilt from: one column an atom, one row a modality, two spaces.

import { at, put } from "./dom.js";
import { css, MODALITIES } from "./emotions.js";
import { state } from "./state.js";

const ROW = 6, GAP = 1; // in pixels of the canvas, which is drawn larger

const section = at("patterns");
const spaces = { homo: at("atoms-homo"), hetero: at("atoms-hetero") };

export function drawAtoms() {
  const { atoms, activations, estimate } = state;
  section.hidden = !atoms;
  if (!atoms) return;
  put(at("atoms-count"), String(atoms));
  for (const [space, canvas] of Object.entries(spaces)) {
    const height = 3 * ROW + 2 * GAP;
    if (canvas.width !== atoms || canvas.height !== height) {
      [canvas.width, canvas.height] = [atoms, height];
      // Few atoms are drawn as bars with sharp sides; of more than there are pixels none may be passed over.
      canvas.style.imageRendering = atoms < canvas.clientWidth ? "pixelated" : "auto";
    }
    const image = new ImageData(atoms, height);
    Object.keys(MODALITIES).forEach((modality, row) => {
      const used = activations?.[space]?.[modality];
      // Activations come less often than estimates, so what is absent by now may still stand in them.
      if (used && estimate?.modalities[modality].present) drawRow(image, row * (ROW + GAP), bytes(used), colour(modality));
    });
    canvas.getContext("2d").putImageData(image, 0, 0);
  }
}

/** A row's strongest atom is drawn in full colour. */
function drawRow(image, top, used, [r, g, b]) {
  const strongest = used.reduce((a, b) => Math.max(a, b), 1);
  for (let x = 0; x < image.width; x++) {
    const alpha = (255 * used[x]) / strongest;
    for (let y = top; y < top + ROW; y++) image.data.set([r, g, b, alpha], 4 * (y * image.width + x));
  }
}

const bytes = (base64) => Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));

function colour(modality) {
  const hex = css(modality);
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}
