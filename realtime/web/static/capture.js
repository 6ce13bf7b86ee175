// The visitor's camera and microphone: asking for them, what comes from them and when, and why one is silent.

import { now } from "./connection.js";

export const DEVICES = { video: "camera", audio: "microphone" };
const WANTED = {
  video: { width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 }, facingMode: "user" },
  // Noise suppression takes out what the voice is read from.
  audio: { channelCount: 1, echoCancellation: { ideal: true }, noiseSuppression: false, autoGainControl: true },
};
const INSECURE = "browsers give a camera only to secure pages: open this page on the machine itself, " +
  "or serve it with --tls-cert and --tls-key";
const PICTURE_SIDE = 640; // wide, at most
const PICTURE_EVERY_MS = 1000 / 15 - 10; // less than the span, for frames do not come evenly

/** Ask for devices: {kind: track, or the reason why there is none}. chosen: {kind: id} of one among several. */
export async function acquire(kinds, chosen = {}) {
  if (!navigator.mediaDevices) return Object.fromEntries(kinds.map((kind) => [kind, INSECURE]));
  try {
    const wanted = (kind) => (chosen[kind] ? { ...WANTED[kind], facingMode: undefined, deviceId: { exact: chosen[kind] } } : WANTED[kind]);
    const stream = await navigator.mediaDevices.getUserMedia(Object.fromEntries(kinds.map((kind) => [kind, wanted(kind)])));
    return Object.fromEntries(stream.getTracks().map((track) => [track.kind, track]));
  } catch (error) {
    if (kinds.length === 1) return { [kinds[0]]: because(DEVICES[kinds[0]], error) };
    const found = {};
    for (const kind of kinds) Object.assign(found, await acquire([kind], chosen)); // one after the other: each may ask
    return found;
  }
}

function because(device, { name, message }) {
  switch (name) {
    case "NotAllowedError": return `${device} not allowed: allow it in the browser's address bar and press Start again`;
    case "OverconstrainedError": case "NotFoundError": return `no ${device} found`;
    case "NotReadableError": return `${device} in use by another program`;
    default: return `${device}: ${message || name}`.slice(0, 200); // the server takes no longer reason
  }
}

class Device {
  track = null;
  #reason = "";

  /** changed(): what `source` says may be different now. */
  constructor(changed) { this.changed = changed; }

  /** Begin with a track, or note why there is none. */
  async take(found) {
    if (typeof found === "string") return this.stop(found);
    this.#release();
    this.track = found;
    found.onmute = found.onunmute = () => this.changed();
    found.onended = () => this.stop(`the ${DEVICES[found.kind]} was taken away`);
    await this.begin();
    this.changed();
  }

  stop(reason = "") {
    this.#release();
    this.#reason = reason;
    this.changed();
  }

  #release() {
    if (!this.track) return;
    this.track.stop();
    this.track.onended = this.track.onmute = this.track.onunmute = null;
    this.track = null;
    this.end();
  }

  toggle() {
    if (this.track) this.track.enabled = !this.track.enabled;
    this.changed();
  }

  /** As the server is told. */
  get source() {
    if (!this.track) return { state: "off", reason: this.#reason };
    const paused = this.pausedBy();
    return paused ? { state: "paused", reason: paused } : { state: "on", reason: "", ...this.format };
  }

  pausedBy() {
    if (!this.track.enabled) return "switched off";
    return this.track.muted ? "muted by the system" : "";
  }
}

export class Camera extends Device {
  #video;
  #framed;
  #encoded;
  #wants;
  #encoder = null;
  #busy = false;
  #takenMs = 0;

  /** framed(): a new frame to draw; wants(): whether one can be sent; encoded(t, jpeg): one, with its page time of capture. */
  constructor(video, { changed, framed, wants, encoded }) {
    super(changed);
    [this.#video, this.#framed, this.#wants, this.#encoded] = [video, framed, wants, encoded];
  }

  get mirrored() { return this.track?.getSettings().facingMode !== "environment"; }

  pausedBy() { return super.pausedBy() || (document.hidden ? "the tab is hidden" : ""); }

  async begin() {
    this.#video.srcObject = new MediaStream([this.track]);
    this.#follow(this.track);
    await this.#video.play().catch(() => {}); // interrupted by a stop; frames say whether it plays
  }

  end() { this.#video.srcObject = null; }

  #follow(track) {
    if (track !== this.track) return;
    const next = (capturedMs) => {
      this.#framed();
      this.#take(capturedMs);
      this.#follow(track);
    };
    if (this.#video.requestVideoFrameCallback)
      this.#video.requestVideoFrameCallback((calledMs, { captureTime }) => next(Math.min(captureTime ?? calledMs, calledMs)));
    else setTimeout(() => next(performance.now()), 1000 / 30);
  }

  /** The newest frame wins: one that comes while another is encoded, or the network is behind, is not sent. */
  async #take(capturedMs) {
    const [w, h] = [this.#video.videoWidth, this.#video.videoHeight], scale = Math.min(1, PICTURE_SIDE / w);
    if (this.#busy || !w || capturedMs - this.#takenMs < PICTURE_EVERY_MS || this.source.state !== "on" || !this.#wants()) return;
    this.#takenMs = capturedMs;
    this.#busy = true;
    try {
      const jpeg = await this.#encode({ width: Math.round(w * scale), height: Math.round(h * scale) });
      if (this.source.state === "on") this.#encoded(capturedMs / 1000, jpeg);
    } catch (error) {
      // The camera stopped meanwhile, or its picture is not there yet.
      if (this.track && error.name !== "InvalidStateError") throw error;
    } finally {
      this.#busy = false;
    }
  }

  async #encode(size) {
    const encoder = this.#encoder ??= new Worker(new URL("jpeg-worker.js", import.meta.url), { type: "module" });
    const frame = await createImageBitmap(this.#video);
    return new Promise((resolve, reject) => {
      encoder.onerror = reject;
      encoder.onmessage = ({ data }) => resolve(data);
      encoder.postMessage({ frame, ...size }, [frame]);
    });
  }
}

export class Microphone extends Device {
  #context = null;
  #recorded;

  /** recorded(t, samples): a block, with the page time of its first sample. */
  constructor({ changed, recorded }) {
    super(changed);
    this.#recorded = recorded;
    // Some browsers start sound only once the page was touched.
    for (const event of ["pointerdown", "keydown"]) addEventListener(event, () => this.#context?.state === "suspended" && this.#context.resume());
  }

  get format() { return { rate: this.#context.sampleRate }; }

  pausedBy() {
    if (this.#context?.state !== "running") return "the browser holds the sound back: press any key";
    return super.pausedBy();
  }

  async begin() {
    const context = this.#context = new AudioContext(), track = this.track;
    context.onstatechange = () => this.changed();
    await context.audioWorklet.addModule(new URL("pcm-worklet.js", import.meta.url));
    if (context !== this.#context) return; // stopped meanwhile
    const blocks = new AudioWorkletNode(context, "blocks", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    const latencyS = track.getSettings().latency ?? 0;
    blocks.port.onmessage = ({ data }) => {
      if (this.source.state === "on") this.#recorded(now() - data.length / context.sampleRate - latencyS, data);
    };
    context.createMediaStreamSource(new MediaStream([track])).connect(blocks);
    if (context.state === "suspended") context.resume();
  }

  end() {
    if (this.#context) this.#context.onstatechange = null;
    this.#context?.close();
    this.#context = null;
  }
}
