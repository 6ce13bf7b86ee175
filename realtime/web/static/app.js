// The page of one stream, of the server's camera or of the visitor's own (docs/web.md says how they speak).
//
// connection.js the WebSocket, state.js what is known, draw.js and its parts what is shown of it, emotions.js how it is named;
// settings.js what can be chosen, recording.js, player.js for recordings; and of a visitor visit.js, from the invitation to leaving: capture.js (with
// jpeg-worker.js and pcm-worklet.js) what camera and microphone give, outbox.js what of it waits to be sent.

import { Connection } from "./connection.js";
import { at } from "./dom.js";
import { delays, startDrawing } from "./draw.js";
import { fromServer, t } from "./language.js";
import { Player } from "./player.js";
import { Recording } from "./recording.js";
import { Settings } from "./settings.js";
import { choose, estimated, forget, gathered, heard, said, state, touch } from "./state.js";
import { Visit } from "./visit.js";

function say(text, bad = false) {
  at("connection").textContent = t(text);
  at("connection").className = bad ? "bad" : "";
}

const KEPT_S = 600; // in which the server keeps the recordings of a session that is over

const connection = new Connection({
  told(message) {
    // What was on its way when the visitor left is not shown to the next.
    if (OF_A_SESSION.has(message.type) && !state.viewing && !visit.isLive) return;
    TOLD[message.type]?.(message);
  },
  pictured,
  lost({ final, reason }) {
    visit.cut();
    recording.outOfReach();
    if (state.ended) {
      say(state.ended);
      return false;
    }
    say(final ? fromServer(reason) : "connection lost; trying again", true);
    if (final) visit.over(reason);
    return true;
  },
});
const settings = new Settings(connection, (kind) => visit.choose(kind));
const visit = new Visit(connection, say, settings);
const recording = new Recording(connection);
const player = new Player(connection);

const OF_A_SESSION = new Set(["estimate", "event", "activations", "face", "people", "said", "words", "status", "marks", "refused"]);

const TOLD = {
  hello(message) {
    [state.broker, state.atoms, state.choosing, state.ended] = [message.broker ?? "", message.atoms ?? 0, message.choosing ?? false, ""];
    recording.hello(message);
    settings.hello(message);
    player.hello(message);
    say(visit.hello(message));
    touch("model", "health");
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
  estimate: estimated,
  event({ event, emotion }) {
    if (event !== "emotion") return;
    state.lasting = emotion ?? "nobody seen or heard";
    touch("answer");
  },
  activations(message) {
    state.activations = message;
    touch("model");
  },
  face(message) {
    [state.face, state.faceAt] = [message, performance.now()];
    touch("picture");
  },
  people: gathered,
  words: heard,
  said,
  status(message) {
    state.statuses.set(message.worker, message);
    touch("answer", "health");
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
  sessions: (message) => player.offer(message),
  session: (message) => player.opened(message),
  playing: (message) => player.playing(message),
  jumped: forget,
  ended({ reason }) {
    recording.stop();
    if (state.viewing) {
      recording.withdraw("what was recorded is gone with the run");
      say(state.ended = reason ? t("the run has ended: {reason}", { reason: fromServer(reason) }) : t("the run has ended"));
    } else {
      recording.keepFor(KEPT_S);
      visit.over(reason || "the session has ended");
    }
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

if (new URLSearchParams(location.search).has("overlay")) document.documentElement.classList.add("overlay");
startDrawing((x, y) => connection.send({ type: "choose", x, y }), choose);
connection.open();
