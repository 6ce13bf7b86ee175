"""Features of labelled items, made once by the extractors that also run live, and kept."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from dhmd.contract import FeatureSpec, Rows
from dhmd.features.expression import ExpressionNet
from dhmd.features.face import face_spec
from dhmd.features.speech import SpeechModel
from dhmd.features.text import TextExtractor
from dhmd.features.timeline import SAMPLE_RATE_HZ
from dhmd.features.voice import HOP, VoiceExtractor
from dhmd.modality import Modality
from training.config import FACES
from training.data.corpora import items_of
from training.data.faces import face_examples
from training.data.items import Archived, Example, Item, Split
from training.data.store import FeatureStore, feature_key
from training.errors import CorpusMissing

LEAD_S: Final = 0.32
"""Silence put before a clip, as a microphone that runs before someone speaks; after it as much as ends the last hop."""

_STREAM_S: Final = 1000.0


def decode(encoded: bytes) -> NDArray[np.float32]:
    """A sound file as (N,) samples, 16 kHz mono in [-1, 1]."""
    import av

    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE_HZ)
    with av.open(io.BytesIO(encoded), "r") as container:
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]).astype(np.float32)


class ClipVoice:
    """Rows of whole clips; each is a stream of its own for the extractor."""

    def __init__(self) -> None:
        self._extractor = VoiceExtractor(SpeechModel())
        self.spec: Final = self._extractor.spec
        self._streams = 0

    def __call__(self, item: Item) -> Rows:
        if not isinstance(item.content, Archived):
            raise TypeError(f"{item.id}: no sound in it")
        samples = decode(item.content.read())
        lead = round(LEAD_S * SAMPLE_RATE_HZ)
        samples = np.pad(samples, (lead, lead + -(lead + len(samples)) % HOP))
        self._streams += 1
        begin_s = self._streams * _STREAM_S
        rows = self._extractor.push(samples, begin_s)
        return Rows(rows.times_s - begin_s - LEAD_S, rows.values)


class SentenceText:
    """Rows of sentences."""

    def __init__(self) -> None:
        self._extractor = TextExtractor()
        self.spec: Final = self._extractor.spec

    def __call__(self, item: Item) -> Rows:
        if isinstance(item.content, Archived):
            raise TypeError(f"{item.id}: no words in it")
        return self._extractor.extract(item.content)


OFFLINE: Final[dict[Modality, Callable[[], ClipVoice | SentenceText]]] = {
    Modality.AUDIO: ClipVoice,
    Modality.TEXT: SentenceText,
}


def extract(items: Sequence[Item], store_path: Path) -> tuple[list[Example], dict[Modality, FeatureSpec]]:
    """Every item with its rows, in order, and the specs of the extractors; only what the store lacks is extracted."""
    examples: list[Example] = []
    specs: dict[Modality, FeatureSpec] = {}
    with FeatureStore(store_path) as store:
        for modality, make in OFFLINE.items():
            own = [item for item in items if item.modality is modality]
            extractor = make()
            specs[modality] = spec = extractor.spec
            keys = [feature_key(item.digest(), spec) for item in own]
            missing, named = store.missing(keys), dict(zip(keys, own, strict=True))
            # In the order of their hashes: what a cut run leaves behind is a fair draw of every corpus.
            work = [(key, named[key]) for key in sorted(missing)]
            for key, item in track(work, f"Features of {modality}", total=len(work), disable=not work):
                try:
                    store.put(key, extractor(item))
                except ValueError as error:
                    raise CorpusMissing(f"{item.id}: {error}") from error
            rows = store.get_all(keys, spec.width)
            examples += [Example(item, one) for item, one in zip(own, rows, strict=True)]
    return examples, specs


def gather(
    names: Sequence[str], corpora: Path, cache: Path, expression: Path, split: Split | None = None
) -> tuple[list[Example], dict[Modality, FeatureSpec]]:
    """Examples of the named corpora (of one split when given), and the specs of all three modalities.

    expression: weights of the network of the face crop.
    """
    if not expression.is_file():
        raise CorpusMissing(
            f"{expression} is not there: train it with `dhmd-train expression`, or name it with --expression"
        )
    items = [item for item in items_of(corpora, [n for n in names if n != FACES]) if split in {None, item.split}]
    store = cache / "features.sqlite"
    examples, specs = extract(items, store)
    network = ExpressionNet.load(expression)
    specs[Modality.VISION] = face_spec(network)
    if FACES in names:
        faces = face_examples(corpora, network, cache / "expression", store)
        examples += [example for example in faces if split in {None, example.item.split}]
    return examples, specs
