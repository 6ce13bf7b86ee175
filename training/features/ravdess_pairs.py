"""RAVDESS as pairs: the face and the voice of one and the same take, as one file of features.

The face: OpenFace's action units, averaged over the clip. The voice: mean and deviation over time of what the lower
layers of the untuned speech encoder say of the spoken part. Nothing in either was learned from RAVDESS.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from dhmd.assets.store import fetch, sha256_of
from dhmd.checkpoint import write_atomically
from dhmd.contract import FeatureSpec
from dhmd.features.speech import SPEECH_ASSET, LogMel
from dhmd.features.speech_encoder import SpeechEncoder
from dhmd.modality import Modality
from training.data import media
from training.data.corpora import prepare
from training.data.manifest import SYNONYMS
from training.errors import CorpusMissing
from training.features.spoken import spoken_part
from training.progress import followed

UNITS: Final = "ravdess_openface_aus.csv"
FILE: Final = "ravdess-pairs.npz"
LAYERS: Final = (1, 2, 3)
"""Layers of the speech encoder; each is a row."""

_WEIGHTS: Final = "model.bin"
_KINDS: Final = ("_r", "_c")
"""Endings of the columns with a unit's intensity and with its presence."""


def prepare_pairs(corpora: Path, out: Path) -> Path:
    """Write `out`/ravdess-pairs.npz; what is up to date stays, and the voices of an actor are listened to once.

    Its arrays have one row a clip: `id`, `speaker`, `emotion`, `vision` (N, 1, units), `audio` (N, layers, 2 d).
    `specs` says in JSON what they are made of. Raises CorpusMissing.
    """
    if not (corpora / UNITS).is_file():
        raise CorpusMissing(f"not there: {corpora / UNITS}; pass the folder of the corpora with --corpora")
    (manifest,) = prepare(["ravdess"], corpora, out)
    with manifest.open(encoding="utf-8", newline="") as table:
        clips = {row["id"]: row for row in csv.DictReader(table)}
    content = (corpora / UNITS).read_bytes()
    try:
        faces = list(csv.DictReader(io.StringIO(content.decode())))
        names = [name for name in faces[0] if name.endswith(_KINDS)]
        takes = [row["audio_file_of_the_same_take"] for row in faces]
        speaker = [clips[take]["group"] for take in takes]
        emotion = [SYNONYMS[row["emotion"]] for row in faces]
        vision = np.array([[float(row[name]) for name in names] for row in faces], np.float32)
    except (IndexError, KeyError, UnicodeDecodeError, ValueError) as error:
        raise CorpusMissing(f"{corpora / UNITS} is not what it should be ({error!r}): fetch it again") from error
    specs = _specs(len(names), sha256(content).hexdigest(), sha256(manifest.read_bytes()).hexdigest())
    described, file = json.dumps(specs), out / FILE
    if file.is_file() and _description(file) == described:
        return file
    encoder = SpeechEncoder.load(fetch(SPEECH_ASSET) / _WEIGHTS)
    audio = np.empty((len(takes), len(LAYERS), 2 * encoder.width), np.float32)
    folder = out / "ravdess-pairs" / sha256(described.encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    for actor in followed(sorted(set(speaker)), "Listening to actors", "actors"):
        own = [i for i, one in enumerate(speaker) if one == actor]
        audio[own] = _voices(folder / f"{actor}.npy", [out / clips[takes[i]]["audio"] for i in own], encoder)
    packed = io.BytesIO()
    np.savez_compressed(
        packed,
        id=np.array(takes),
        speaker=np.array(speaker),
        emotion=np.array(emotion),
        vision=vision[:, None],
        audio=audio,
        specs=np.array(described),
    )
    write_atomically(file, packed.getvalue())
    return file


def _specs(units: int, units_sha256: str, clips_sha256: str) -> dict[str, Any]:
    """The specs of both, and the clips. A row is of a whole clip, so windows have no length of their own."""
    whole: dict[str, Any] = {"rate_hz": None, "window_s": 30.0, "absent_after_s": 30.0}
    face = FeatureSpec(
        Modality.VISION, "openface-units-mean", "1", units, steps=1, weights={UNITS: units_sha256}, **whole
    )
    weights = {f"{SPEECH_ASSET}/{_WEIGHTS}": sha256_of(SPEECH_ASSET, _WEIGHTS)}
    voice = FeatureSpec(
        Modality.AUDIO, "speech-layers-statistics", "1", 768, steps=len(LAYERS), weights=weights, **whole
    )
    return {"vision": face.to_dict(), "audio": voice.to_dict(), "layers": LAYERS, "clips_sha256": clips_sha256}


def _description(file: Path) -> str | None:
    """The specs of a file that is there; None where it is damaged, so that it is made anew."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return str(arrays["specs"])
    except (OSError, ValueError, KeyError, EOFError):
        return None


def _voices(file: Path, sounds: Sequence[Path], encoder: SpeechEncoder) -> NDArray[np.float32]:
    """(N, layers, 2 d) of one actor's clips, from the file where they are kept."""
    if not file.is_file():
        mel = LogMel()
        rows = [_statistics(encoder, mel(spoken_part(media.sound(path)[0]))) for path in sounds]
        packed = io.BytesIO()
        np.save(packed, np.stack(rows))
        write_atomically(file, packed.getvalue())
    return np.asarray(np.load(file), np.float32)


@torch.inference_mode()
def _statistics(encoder: SpeechEncoder, mel: NDArray[np.float32]) -> NDArray[np.float32]:
    """mel: (mels, T). Returns (layers, 2 d): mean and deviation over time of each layer's hidden states."""
    states = encoder(torch.from_numpy(mel)[None])
    rows = [torch.cat([states[i][0].mean(dim=0), states[i][0].std(dim=0, correction=0)]) for i in LAYERS]
    return torch.stack(rows).numpy()
