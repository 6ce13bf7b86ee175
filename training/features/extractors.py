"""The extractors of the three modalities, with their learned parts from one folder; made nowhere else in training."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import Final

from dhmd.assets.store import fetch
from dhmd.checkpoint import PRETRAINED, encoder_path
from dhmd.contract import FeatureSpec
from dhmd.features.expression import ExpressionNet
from dhmd.features.face import FaceExtractor, face_spec
from dhmd.features.landmarks import FaceLandmarks
from dhmd.features.speech import SpeechModel
from dhmd.features.text import TextExtractor
from dhmd.features.voice import VoiceExtractor
from dhmd.features.voice_network import VoiceNetwork
from dhmd.modality import Modality
from training.errors import EncodersMissing
from training.features.face_images import DETECTION_CONFIDENCE

ENCODERS: Final = PRETRAINED / "base"
"""Where the learned parts lie unless another folder is named; every checkpoint has copies of its own."""


class LazyExtractors:
    """Made when first asked for, and shared where that changes no row: an extractor of a stream is always a fresh one.

    encoders: folder with one file a modality, see `dhmd.checkpoint.encoder_path`. Raises EncodersMissing.
    """

    def __init__(self, encoders: Path) -> None:
        self._path = {m: encoder_path(encoders, m) for m in Modality}
        for modality, path in self._path.items():
            if not path.is_file():
                raise EncodersMissing(
                    f"{path} is not there: train it with `dhmd-train encoder {modality} --out {encoders}`, "
                    "or name another folder with --encoders"
                )

    @cached_property
    def expression(self) -> ExpressionNet:
        return ExpressionNet.load(self._path[Modality.VISION])

    @cached_property
    def voice_network(self) -> VoiceNetwork:
        return VoiceNetwork.load(self._path[Modality.AUDIO])

    @cached_property
    def speech(self) -> SpeechModel:
        return SpeechModel()

    @cached_property
    def text(self) -> TextExtractor:
        return TextExtractor(adapter=self._path[Modality.TEXT])

    @cached_property
    def landmarks(self) -> FaceLandmarks:
        """The landmarker for stills."""
        return FaceLandmarks(fetch("face-landmarker") / "face_landmarker.task", "image", DETECTION_CONFIDENCE)

    def voice(self) -> VoiceExtractor:
        """A fresh one, for one stream."""
        return VoiceExtractor(self.voice_network)

    def face(self) -> FaceExtractor:
        """A fresh one, for one stream."""
        return FaceExtractor(self.expression)

    def specs(self) -> dict[Modality, FeatureSpec]:
        """Specs of what the extractors make."""
        return {
            Modality.TEXT: self.text.spec,
            Modality.VISION: face_spec(self.expression),
            Modality.AUDIO: self.voice().spec,
        }

    def close(self) -> None:
        """Left to the garbage collector, MediaPipe's landmarker can wait for its own thread for ever."""
        if "landmarks" in self.__dict__:
            self.landmarks.close()


def copy_learned(encoders: Path, folder: Path) -> None:
    """Give a checkpoint's folder the learned parts that made its features, with the reports of their training."""
    for m in Modality:
        for path in (encoder_path(encoders, m), encoder_path(encoders, m).with_suffix(".json")):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
