// The picture, of the visitor's own camera or as the server sends it, the face that is read in it, and the others.

import { at, put } from "./dom.js";
import { colourOf, inShort } from "./draw-people.js";
import { t } from "./language.js";
import { state } from "./state.js";

const FACE_MS = 1000; // a face that was read longer ago is somewhere else by now
const OTHERS = 8;

const canvas = at("picture");
const nobody = at("nobody");
const read = at("read");
const context = canvas.getContext("2d", { alpha: false });
const others = [];

/** chosen(x, y): somebody points at a person who is not read, at fractions of the picture; look(id): at one who is. */
export function buildPicture(chosen, look) {
  for (let i = 0; i < OTHERS; i++) {
    const button = document.createElement("button");
    button.className = "person";
    button.hidden = true;
    button.append(document.createElement("span"));
    button.onclick = () => (button.dataset.id ? look(+button.dataset.id) : chosen(+button.dataset.x, +button.dataset.y));
    at("others").append(button);
    others.push(button);
  }
}

export function drawPicture() {
  canvas.classList.toggle("mirrored", state.mirror);
  const why = state.viewing ? "" : whyDark();
  const image = state.viewing ? state.picture : state.own;
  const [w, h] = [image?.videoWidth ?? image?.width, image?.videoHeight ?? image?.height];
  const face = !why && (state.recorded || (w && performance.now() - state.faceAt < FACE_MS)) ? state.face : null;
  drawPeople(face);
  if (why) {
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    put(nobody, why);
    nobody.hidden = false;
    return;
  }
  if (!w && !state.recorded) return;
  if (!w) return drawUnpictured(face);
  if (canvas.width !== w || canvas.height !== h) {
    [canvas.width, canvas.height] = [w, h];
    canvas.parentElement.style.setProperty("--ratio", (w / h).toFixed(4));
  }
  context.drawImage(image, 0, 0);
  nobody.hidden = true;
  if (face?.box) drawFace(face, w, h);
}

/** A recording without pictures: the face alone. */
function drawUnpictured(face) {
  context.fillStyle = "#000";
  context.fillRect(0, 0, canvas.width, canvas.height);
  put(nobody, t("no pictures in this recording"));
  nobody.hidden = Boolean(face?.box);
  if (face?.box) drawFace(face, canvas.width, canvas.height);
}

function whyDark() {
  const camera = state.sources.video;
  if (!camera) return t("no picture");
  if (camera.state === "on" || camera.reason === "the tab is hidden") return "";
  return camera.reason === "switched off" ? t("camera off") : t("no picture");
}

function drawFace(face, w, h) {
  const [x0, y0, x1, y1] = face.box;
  context.strokeStyle = "#ffffffcc";
  context.lineWidth = 2;
  context.strokeRect(x0 * w, y0 * h, (x1 - x0) * w, (y1 - y0) * h);
  if (!face.points) return;
  const bytes = Uint8Array.from(atob(face.points), (c) => c.charCodeAt(0));
  const points = new Int16Array(bytes.buffer), size = Math.max(1.5, w / 320);
  context.fillStyle = "#8be9fdd0";
  for (let i = 0; i < points.length; i += 2)
    context.fillRect((points[i] / 1e4) * w - size / 2, (points[i + 1] / 1e4) * h - size / 2, size, size);
}

/** Who is read and who is not, once there are several. The buttons stay, so that one can be pressed while people move. */
function drawPeople(face) {
  const followed = face && state.people.length > 1 ? state.people : [];
  const unread = followed.length ? [] : (face?.others ?? []).toSorted((a, b) => a[0] - b[0]);
  read.hidden = !(unread.length && face.box);
  if (!read.hidden) {
    const [x0, , x1, y1] = face.box;
    read.style.left = `${100 * across((x0 + x1) / 2)}%`;
    read.style.top = `${100 * Math.min(y1, 0.94)}%`;
  }
  const there = [...followed, ...unread.map((box) => ({ box }))];
  others.forEach((button, i) => {
    const one = there[i];
    button.hidden = !one;
    if (!one) return;
    const [x0, y0, x1, y1] = one.box.map((side) => Math.min(1, Math.max(0, side)));
    Object.assign(button.style, {
      left: `${100 * (state.mirror ? 1 - x1 : x0)}%`, top: `${100 * y0}%`, width: `${100 * (x1 - x0)}%`, height: `${100 * (y1 - y0)}%`,
    });
    const isRead = one.id !== undefined;
    button.classList.toggle("followed", isRead);
    button.classList.toggle("speaks", isRead && one.id === state.speaker);
    button.style.setProperty("--who", isRead ? colourOf(one.id) : "");
    button.disabled = !isRead && !state.choosing;
    button.dataset.id = one.id ?? "";
    Object.assign(button.dataset, { x: (x0 + x1) / 2, y: (y0 + y1) / 2 });
    put(button.firstChild, isRead ? inShort(one.id) : state.choosing ? t("read this person") : t("not read"));
  });
}

const across = (x) => (state.mirror ? 1 - x : x);
