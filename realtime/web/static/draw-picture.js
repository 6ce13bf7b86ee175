// The picture, of the visitor's own camera or as the server sends it, and the face that is read in it.

import { at, put } from "./dom.js";
import { state } from "./state.js";

const FACE_MS = 1000; // a face that was read longer ago is somewhere else by now

const canvas = at("picture");
const nobody = at("nobody");
const context = canvas.getContext("2d", { alpha: false });

export function drawPicture() {
  const why = state.viewing ? "" : whyDark();
  if (why) {
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    put(nobody, why);
    nobody.hidden = false;
    return;
  }
  const image = state.viewing ? state.picture : state.own;
  const [w, h] = [image?.videoWidth ?? image?.width, image?.videoHeight ?? image?.height];
  if (!w) return;
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  context.drawImage(image, 0, 0);
  nobody.hidden = true;
  if (state.face?.box && performance.now() - state.faceAt < FACE_MS) drawFace(state.face, w, h);
}

function whyDark() {
  const camera = state.sources.video;
  if (!camera) return "no picture";
  if (camera.state === "on" || camera.reason === "the tab is hidden") return "";
  return camera.reason === "switched off" ? "camera off" : "no picture";
}

function drawFace(face, w, h) {
  const [x0, y0, x1, y1] = face.box;
  context.strokeStyle = "#ffffffcc";
  context.lineWidth = 2;
  context.strokeRect(x0 * w, y0 * h, (x1 - x0) * w, (y1 - y0) * h);
  const bytes = Uint8Array.from(atob(face.points), (c) => c.charCodeAt(0));
  const points = new Int16Array(bytes.buffer), size = Math.max(1.5, w / 320);
  context.fillStyle = "#8be9fdd0";
  for (let i = 0; i < points.length; i += 2)
    context.fillRect((points[i] / 1e4) * w - size / 2, (points[i + 1] / 1e4) * h - size / 2, size, size);
}
