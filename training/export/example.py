"""From a face, sound and words to the payload that dhmd publishes, with numpy and ONNX Runtime; words need tokenizers.

python example.py --face face.npz --sound talk.wav --words "we won the prize" --end 4.0

Everything it reads lies beside it: see dhmd.json for shapes and units, and docs/deployment.md of dhmd for more.
"""

from __future__ import annotations

import argparse
import json
import sys
import wave
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dhmd.contract import FeatureSpec, Rows
from dhmd.features.prosody import PROSODY_HISTORY, PROSODY_ROW, prosody
from dhmd.influence import influence
from dhmd.labels import CIRCUMPLEX, EMOTIONS
from dhmd.modality import EDGES, Modality
from dhmd.untrusted import read_json_object

HERE = Path(__file__).parent
RATE_HZ, HOP, CONTEXT = 16_000, 5120, 51_200
"""Samples a second; between two runs of the voice network; that it sees at each, at most."""
FRAME, BEFORE, HANGOVER = 512, 64, 3840
"""Samples of a frame of voice activity, before it, and after speech that still count as voice."""
FACE_HZ = 15.0
Floats = NDArray[np.float32]


CONTRACT = read_json_object(HERE / "dhmd.json")
SPECS = {m: FeatureSpec.from_dict(CONTRACT["features"][m]) for m in Modality}


@cache
def network(name: str) -> Any:
    import onnxruntime  # after dhmd, which forbids it to report usage

    return onnxruntime.InferenceSession(HERE / f"{name}.onnx", providers=["CPUExecutionProvider"])


def face_rows(path: Path, end_s: float) -> Rows:
    """Rows of aligned crops: of `crops.npy`, or of a .npz with `crops` and what else there is.

    crops: (N, 48, 48) uint8, grey, eyes level. blendshapes: (N, 52), pose: (N, 3) yaw, pitch and roll in radians, both
    of MediaPipe's Face Landmarker; without them those of the average face stand there. times_s: (N,); without, 15 a
    second up to the end.
    """
    given = np.load(path, allow_pickle=False)
    given = dict(given) if path.suffix == ".npz" else {"crops": given}
    crops = np.asarray(given["crops"], np.uint8).reshape(-1, 48, 48)
    embedding, logits = network("face").run(None, {"crops": crops})
    average = np.array(CONTRACT["normaliser"]["vision"]["mean"], np.float32)
    blendshapes = given.get("blendshapes", np.tile(average[:52], (len(crops), 1)))
    pose = given.get("pose", np.tile(average[52:55], (len(crops), 1)))
    times_s = given.get("times_s", end_s - np.arange(len(crops))[::-1] / FACE_HZ)
    return Rows(times_s, np.concatenate([blendshapes, pose, embedding, logits], axis=1).astype(np.float32))


def read_sound(path: Path) -> Floats:
    """Samples (N,) in [-1, 1] of a WAV file with 16 kHz, one channel and 16 bits."""
    with wave.open(str(path)) as file:
        if (file.getframerate(), file.getnchannels(), file.getsampwidth()) != (RATE_HZ, 1, 2):
            sys.exit(
                f"{path}: expected 16 kHz, mono, 16 bits; ffmpeg -i {path} -ar 16000 -ac 1 -sample_fmt s16 out.wav"
            )
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / np.float32(32768)


def speaking(samples: Floats) -> NDArray[np.bool_]:
    """Whether each sample belongs to voice. Speech begins at a probability of one half, and ends below 0.35."""
    voice = np.zeros(len(samples) + HANGOVER, np.bool_)
    hidden = cell = np.zeros((1, 1, 128), np.float32)
    padded = np.concatenate([np.zeros(BEFORE, np.float32), samples])
    speaks = False
    for start in range(0, len(samples) - FRAME + 1, FRAME):
        heard = {"input": padded[None, start : start + BEFORE + FRAME], "h": hidden, "c": cell}
        probability, hidden, cell = network("voice_activity").run(None, heard)
        speaks = bool(probability.item() >= (0.35 if speaks else 0.5))
        if speaks:
            voice[start : start + FRAME + HANGOVER] = True
    return voice[: len(samples)]


def voice_rows(samples: Floats) -> Rows:
    """A row for each 80 ms of voice, from hop to hop; what fills no hop at the end is left out."""
    voice, parts = speaking(samples), []
    before = np.zeros(PROSODY_HISTORY, np.float32)
    for end in range(HOP, len(samples) + 1, HOP):
        voiced = voice[end - HOP : end].reshape(-1, PROSODY_ROW).any(axis=1)
        if voiced.any():
            (heard,) = network("voice").run(None, {"samples": samples[None, max(0, end - CONTEXT) : end]})
            melody = prosody(np.concatenate([before, samples])[end - HOP : end + PROSODY_HISTORY])
            ends_s = (end - HOP + PROSODY_ROW * np.arange(1, HOP // PROSODY_ROW + 1)) / RATE_HZ
            parts.append(Rows(ends_s[voiced], np.concatenate([heard, melody], axis=1)[voiced]))
    return Rows.concatenate(parts, SPECS[Modality.AUDIO].width)


def word_rows(text: str, end_s: float) -> Rows:
    """A row for each token of the newest words, all of which were said by now."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    steps, newest, tokens = SPECS[Modality.TEXT].steps, list[str](), 0
    for word in reversed(text.split()):
        if tokens < steps:
            newest.insert(0, word)
            tokens += len(tokenizer.encode(f" {word}", add_special_tokens=False).ids)
    encoded = tokenizer.encode(" ".join(newest))
    (vectors,) = network("words").run(None, {"ids": np.array(encoded.ids, np.int64)})
    own = vectors[np.array(encoded.special_tokens_mask) == 0][-steps:]
    return Rows(np.full(len(own), end_s), own)


class Window:
    """The window that ends at `end_s`, and what the network says of it."""

    def __init__(self, rows: Mapping[Modality, Rows], end_s: float) -> None:
        self.end_s = end_s
        cuts = {m: SPECS[m].window(rows[m], end_s) for m in Modality}
        self.inputs = {m: values for m, (values, _) in cuts.items()}
        self.masks = {m: mask for m, (_, mask) in cuts.items()}
        self.present = [m for m in Modality if self.masks[m].any()]
        self.newest_s = {m: max((float(t) for t in rows[m].times_s if t <= end_s), default=None) for m in Modality}

    def said(self, shown: Collection[Modality]) -> dict[str, float]:
        """Each column of the network, with these modalities shown and the others left out."""
        given = [*self.inputs.values(), *(mask & (m in shown) for m, mask in self.masks.items())]
        feed = {name: value[None] for name, value in zip(CONTRACT["inputs"], given, strict=True)}
        (row,) = network("network").run([CONTRACT["output"]], feed)[0]
        return dict(zip(CONTRACT["columns"], map(float, row), strict=True))

    def emotions(self, shown: Collection[Modality]) -> dict[str, float]:
        said = self.said(shown)
        return shares({name: said[f"emotion {name}"] for name in EMOTIONS}, together(shown))


def together(shown: Collection[Modality]) -> str:
    return "+".join(m for m in Modality if m in shown)


def shares(scores: Mapping[str, float], calibrated_as: str) -> dict[str, float]:
    """Probabilities: softmax of the scores by the temperature that was measured for these modalities."""
    scaled = np.array(list(scores.values())) / CONTRACT["temperature"].get(calibrated_as, 1.0)
    powers = np.exp(scaled - scaled.max())
    return dict(zip(scores, (powers / powers.sum()).round(4).tolist(), strict=True))


def interval(value: float, calibrated_as: str, low: float, high: float) -> dict[str, float]:
    """A number on its scale with its 80 % interval: the whole scale where none was measured."""
    half = CONTRACT["sentiment_half_width"].get(calibrated_as, high - low)
    value = min(max(value, low), high)
    return {
        "value": round(value, 4),
        "low": round(max(value - half, low), 4),
        "high": round(min(value + half, high), 4),
    }


def own(head: Mapping[str, Any], said: Mapping[str, float], shown: Collection[Modality]) -> dict[str, Any]:
    """What a head of the checkpoint's own says."""
    name = f"{head['name']}: {together(shown)}"
    if head["classes"]:
        probabilities = shares({one: said[f"{head['name']} {one}"] for one in head["classes"]}, name)
        return {"top": max(probabilities, key=lambda one: probabilities[one]), "probabilities": probabilities}
    low, high = head["scale"]
    value = (low + high) / 2 + (high - low) / 2 * said[head["name"]]
    return interval(value, name, low, high) | {"range": [low, high], "unit": head["unit"]}


def payload(rows: Mapping[Modality, Rows], end_s: float, words: str = "") -> dict[str, Any]:
    """What is published of the window that ends at `end_s`: docs/estimate.schema.json of dhmd describes it."""
    window = Window(rows, end_s)
    present = window.present
    affect: list[float | None] = [None, None]
    if present:
        said, emotions = window.said(present), window.emotions(present)
        top = max(emotions, key=lambda name: emotions[name])  # live, another takes its place by a margin over a second
        affect = [round(sum(emotions[name] * CIRCUMPLEX[name][axis] for name in EMOTIONS), 4) for axis in (0, 1)]
        sentiment = interval(said["sentiment"], together(present), -3.0, 3.0)
    else:  # nothing was perceived, so nothing is said: no zero, and no "neutral"
        said, emotions, top, sentiment = {}, None, None, None
    graphs = {
        short: {str(edge): round(said.get(f"{space} edge {edge}", 0.0), 4) for edge in EDGES}
        for short, space in (("homo", "homogeneous"), ("hetero", "heterogeneous"))
    }
    extra = {head["name"]: own(head, said, present) for head in CONTRACT["heads"]} if present else {}
    for i, name in enumerate(("valence", "arousal")):  # measured, in place of what the emotions stand for
        if "range" in extra.get(name, {}):
            low, high = extra[name]["range"]
            affect[i] = round(2 * (extra[name]["value"] - low) / (high - low) - 1, 4)

    def modality(m: Modality) -> dict[str, Any]:
        newest_s, there = window.newest_s[m], m in present
        told = {
            "present": there,
            "age_s": None if newest_s is None else round(end_s - newest_s, 3),
            "weight": 0.0,
            "sentiment": None,
        }
        if not there or emotions is None:
            return told
        alone, others = window.emotions({m}), set(present) - {m}
        without = [list(window.emotions(others).values())] if others else []
        taught = sum(weight for graph in graphs.values() for edge, weight in graph.items() if edge.startswith(f"{m}->"))
        return told | {
            "weight": round(taught / 2, 4) if others else 1.0,
            "sentiment": round(min(max(said[f"sentiment of {m} alone"], -3.0), 3.0), 4),
            "emotions": alone,
            "influence": round(float(influence(list(emotions.values()), without[0])), 4) if others else 1.0,
        }

    return {
        "v": 1,
        "stream": "example",
        "seq": 0,
        "t": end_s,
        "window": [end_s - max(spec.window_s for spec in SPECS.values()), end_s],
        "sentiment": sentiment,
        "emotions": emotions,
        "top": top,
        "valence": affect[0],
        "arousal": affect[1],
        "modalities": {m.value: modality(m) for m in (Modality.VISION, Modality.AUDIO, Modality.TEXT)},
        "graph": graphs,
        "faces": int(Modality.VISION in present),
        "transcript": words,
        "latency_ms": {"capture_to_estimate": None, "inference": None},
        "dropped": {"video": 0, "audio": 0},
        "model": {"name": CONTRACT["checkpoint"], "checkpoint": CONTRACT["digest"]},
        "extra": extra,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--face", metavar="FILE", type=Path, help="crops: .npy, or .npz with blendshapes and pose")
    parser.add_argument("--sound", metavar="WAV", type=Path, help="16 kHz, mono, 16 bits; begins at second 0")
    parser.add_argument("--words", metavar="TEXT", default="", help="what was said in the last five seconds")
    parser.add_argument("--end", metavar="S", type=float, help="end of the window (default: of the sound, or 5)")
    args = parser.parse_args()
    samples = read_sound(args.sound) if args.sound else np.empty(0, np.float32)
    end_s = args.end if args.end is not None else len(samples) / RATE_HZ or 5.0
    rows = {m: Rows.empty(SPECS[m].width) for m in Modality}
    if args.face:
        rows[Modality.VISION] = face_rows(args.face, end_s)
    if args.sound:
        rows[Modality.AUDIO] = voice_rows(samples)
    if args.words.strip():
        rows[Modality.TEXT] = word_rows(args.words, end_s)
    print(json.dumps(payload(rows, end_s, args.words), indent=1))


if __name__ == "__main__":
    main()
