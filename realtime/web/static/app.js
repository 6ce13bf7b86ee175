// The page of one stream, of the server's camera or of the visitor's own (docs/web.md says how they speak).
//
// connection.js the WebSocket, state.js what is known, draw.js and its parts what is shown of it, recording.js; and of a visitor
// visit.js, from the invitation to leaving: capture.js (with jpeg-worker.js and pcm-worklet.js) what camera and microphone
// give, outbox.js what of it waits to be sent.

import { Connection } from "./connection.js";
import { at } from "./dom.js";
import { delays, startDrawing } from "./draw.js";
import { Recording } from "./recording.js";
import { estimated, heard, state, touch } from "./state.js";
import { Visit } from "./visit.js";

function say(text, bad = false) {
  at("connection").textContent = text;
  at("connection").className = bad ? "bad" : "";
}

const connection = new Connection({
  told(message) {
    // What was on its way when the visitor left is not shown to the next.
    if (OF_A_SESSION.has(message.type) && !state.viewing && !visit.isLive) return;
    TOLD[message.type]?.(message);
  },
  pictured,
  lost({ final, reason }) {
    visit.cut();
    if (state.ended) {
      say(state.ended);
      return false;
    }
    say(final ? reason : "connection lost; trying again", true);
    if (final) visit.over(reason);
    return true;
  },
});
const visit = new Visit(connection, say);
const recording = new Recording(connection);

const OF_A_SESSION = new Set(["estimate", "activations", "face", "words", "status", "marks", "refused"]);

const TOLD = {
  hello(message) {
    [state.broker, state.atoms, state.ended] = [message.broker ?? "", message.atoms ?? 0, ""];
    recording.hello(message);
    say(visit.hello(message));
    touch("atoms", "health");
  },
  joined(message) {
    if (!message.resumed) recording.stop();
    visit.joined(message);
  },
  full: ({ reason }) => visit.over(reason),
  clock(message) {
    state.clock = message;
    visit.timed();
    touch("health");
  },
  estimate: ({ data, end }) => estimated(data, end),
  activations(message) {
    state.activations = message;
    touch("atoms");
  },
  face(message) {
    [state.face, state.faceAt] = [message, performance.now()];
    touch("picture");
  },
  words: heard,
  status(message) {
    state.statuses.set(message.worker, message);
    touch("estimate", "health");
  },
  broker(message) {
    state.broker = message.state;
    touch("health");
  },
  marks: ({ line }) => { at("marked").textContent = line.split("\n").at(-1); },
  missed({ count }) {
    state.missed = count;
    touch("health");
  },
  refused(message) {
    state.refused.set(`${message.what} ${message.reason}`, message);
    touch("health");
  },
  recording: (message) => recording.told(message),
  ended({ reason }) {
    recording.stop();
    if (state.viewing) say(state.ended = `the run has ended${reason ? `: ${reason}` : ""}`);
    else visit.over(reason || "the session has ended");
  },
};

/** Of a source of the server's: a capture time, which nobody asks for here, and a JPEG. */
async function pictured(buffer) {
  const bitmap = await createImageBitmap(new Blob([buffer.slice(8)], { type: "image/jpeg" }));
  state.picture?.close();
  state.picture = bitmap;
  state.pictureAt = performance.now();
  touch("picture");
}

// Delays are measured where they are felt, so tests and the bench read them from outside, here.
Object.defineProperty(window, "dhmd", { value: Object.freeze({ state, delays }) });

startDrawing();
connection.open();
