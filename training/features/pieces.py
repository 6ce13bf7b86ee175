"""One modality of one utterance, from its file or text to rows, by the extractors that also run live.

Text: `words` have their times; typed text is timed as if spoken. Text with sound beside it is timed by the speech model
where the sound says it; where it does not (parts of strangers), it is timed as if spoken, to end with the voice. A film
without text is transcribed, as live; a sound file without text is not.
Sound: a sound file has a little silence before it, as a microphone that runs before someone speaks; a film has none.
Of a session, rows of face and voice are those that were recorded, and words those that were recognised; text beside it
is timed as if spoken, to end with the voice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from dhmd.assets.store import sha256_of
from dhmd.contract import FeatureSpec, Rows, Word
from dhmd.errors import MediaUnreadable
from dhmd.features.face import WIDTH
from dhmd.features.speech import LONGEST_S, SPEECH_ASSET, VOICE_FRAME, VoiceActivity
from dhmd.features.timeline import SAMPLE_RATE_HZ
from dhmd.features.voice import HOP
from dhmd.media.picture import read_image
from dhmd.modality import Modality
from dhmd.session import SessionInvalid
from training.data import media
from training.data.items import Utterance
from training.data.media import Kind
from training.data.recorded import RecordedFeatures
from training.features.extractors import LazyExtractors
from training.features.face_images import DETECTION_CONFIDENCE, LARGEST_CROP, MARGIN, Sight, feature_rows, see
from training.features.store import feature_key

WORD_S: Final = 0.35
"""Duration of a spoken word, on average; typed words are spread at this rate."""

LEAD_S: Final = 0.32
"""Silence put before a sound file; after it, and after a film's sound, as much as ends the last hop."""

SAID: Final = 0.1
"""Geometric mean of the words' probabilities from which on a sound is taken to say a text. Where it does, we found 0.13
and more in nearly all cases; where it does not, 0.05 and less."""

_PAUSE: Final = 19  # frames of voice activity, 0.6 s: a longer silence ends an utterance, as in the live transcript
_LEAD: Final = 20  # frames before the first voice, which is often noticed late
_TAIL: Final = 6
_FORM: Final = "1"
"""Of the rows as they are made here; changes whenever they do."""


class Recipe(StrEnum):
    """The way in which the rows of a piece are made. cost_s: seconds of one core that it takes, roughly."""

    cost_s: float

    def __new__(cls, name: str, cost_s: float) -> Self:
        recipe = str.__new__(cls, name)
        recipe._value_, recipe.cost_s = name, cost_s
        return recipe

    TYPED = "typed", 0.02
    SPOKEN = "spoken", 0.4
    HEARD = "heard", 0.6
    VOICE = "voice", 0.25
    FILM_VOICE = "film voice", 0.25
    FILM = "film", 2.0
    STILL = "still", 0.03
    RECORDED_FACE = "recorded face", 0.01
    RECORDED_VOICE = "recorded voice", 0.01
    RECORDED_WORDS = "recorded words", 0.02
    SIGHT = "sight", 0.015
    """Only what the landmarker sees in a still, without rows."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of work. key: of its rows in the store. sight_key, seen: of a still, and what is known of it."""

    key: str
    recipe: Recipe
    utterance: Utterance
    sight_key: str = ""
    seen: Sight | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """Holds what came of a piece: rows, and of a still what was seen; or why nothing could be made."""

    piece: Piece
    rows: Rows | None = None
    seen: Sight | None = None
    fault: str | None = None


def recipe_of(utterance: Utterance, modality: Modality) -> Recipe | None:
    """Finds how that modality of an utterance comes about; None where its manifest names nothing that has it."""
    if modality is Modality.VISION:
        film = Recipe.RECORDED_FACE if utterance.session else Recipe.FILM
        return film if utterance.video else Recipe.STILL if utterance.image else None
    if modality is Modality.AUDIO:
        film = Recipe.RECORDED_VOICE if utterance.session else Recipe.FILM_VOICE
        return Recipe.VOICE if utterance.audio else film if utterance.video else None
    if utterance.session and utterance.words is None and not (utterance.text and utterance.audio):
        return Recipe.RECORDED_WORDS
    if utterance.words is not None or (utterance.text and not utterance.sound):
        return Recipe.TYPED
    if utterance.text:
        return Recipe.SPOKEN
    return Recipe.HEARD if utterance.video else None


def piece_of(
    utterance: Utterance, recipe: Recipe, digest_of: Callable[[Kind, Path], str], spec: FeatureSpec | None = None
) -> Piece:
    """Names the work. digest_of: sha256 of a file's content. spec: of the extractor, without which no rows are made."""
    part = [utterance.start_s, utterance.end_s]
    kind = Kind.AUDIO if utterance.audio else Kind.VIDEO
    sound = "" if utterance.sound is None else digest_of(kind, utterance.sound)
    content: list[object]
    if recipe is Recipe.TYPED:
        content = [astuple(word) for word in _typed(utterance)]
    elif recipe in {Recipe.SPOKEN, Recipe.HEARD}:
        content = [utterance.text, sound, *part, sha256_of(SPEECH_ASSET, "model.bin")]
    elif recipe in {Recipe.VOICE, Recipe.FILM_VOICE}:
        content = [sound, *part]
    elif recipe in {Recipe.FILM, Recipe.RECORDED_FACE, Recipe.RECORDED_VOICE}:
        content = [digest_of(Kind.VIDEO, utterance.video or Path()), *part]
    elif recipe is Recipe.RECORDED_WORDS:
        content = [utterance.text, digest_of(Kind.VIDEO, utterance.video or Path()), *part]
    else:
        content = [digest_of(Kind.IMAGE, utterance.image or Path())]
    own = Recipe.STILL if recipe is Recipe.SIGHT else recipe
    digest = hashlib.sha256(json.dumps([_FORM, own, *content]).encode()).hexdigest()
    sight = "" if own is not Recipe.STILL else _sight_key(digest)
    return Piece(sight if spec is None else feature_key(digest, spec), recipe, utterance, sight)


def _sight_key(digest: str) -> str:
    landmarker = sha256_of("face-landmarker", "face_landmarker.task")
    return hashlib.sha256(f"{digest} {landmarker} {MARGIN} {DETECTION_CONFIDENCE} {LARGEST_CROP}".encode()).hexdigest()


class PieceMaker:
    """Makes rows of pieces, one after the other. Loads what it needs when it first needs it.

    encoders: see `LazyExtractors`.
    """

    def __init__(self, encoders: Path) -> None:
        self._extractors = LazyExtractors(encoders)
        # Stretches of one session come one after the other.
        self._recording = lru_cache(maxsize=1)(RecordedFeatures.read)
        self._make: Mapping[Recipe, Callable[[Utterance], Rows]] = {
            Recipe.TYPED: lambda one: self._extractors.text.extract(_typed(one)),
            Recipe.SPOKEN: self._spoken,
            Recipe.HEARD: self._heard,
            Recipe.VOICE: self._voice,
            Recipe.FILM_VOICE: self._voice,
            Recipe.FILM: self._film,
            Recipe.RECORDED_FACE: lambda one: self._recorded(one, Modality.VISION),
            Recipe.RECORDED_VOICE: lambda one: self._recorded(one, Modality.AUDIO),
            Recipe.RECORDED_WORDS: self._recorded_words,
        }

    def __call__(self, piece: Piece) -> Made:
        try:
            if piece.recipe in {Recipe.STILL, Recipe.SIGHT}:
                return self._still(piece)
            rows = self._make[piece.recipe](piece.utterance)
        except (MediaUnreadable, SessionInvalid) as error:
            return Made(piece, fault=str(error))
        if not np.isfinite(rows.values.astype(np.float16)).all():
            return Made(piece, fault="its features are not finite, or too large for half precision")
        return Made(piece, rows)

    def close(self) -> None:
        self._extractors.close()

    def _still(self, piece: Piece) -> Made:
        seen = piece.seen or see(read_image(_named(piece.utterance, "image")), self._extractors.landmarks)
        if piece.recipe is Recipe.SIGHT:
            return Made(piece, None, seen)
        if seen.crop is None:
            return Made(piece, Rows.empty(WIDTH), seen)
        rows = feature_rows(seen.crop, seen.measures, self._extractors.expression)
        return Made(piece, Rows(np.zeros(len(rows)), rows), seen)

    def _film(self, utterance: Utterance) -> Rows:
        with self._extractors.face() as extractor:
            parts = [
                extractor.push(picture.image(), picture.time_s).rows
                for picture in media.pictures(_named(utterance, "video"), utterance.start_s, utterance.end_s)
                if extractor.due(picture.time_s)
            ]
            return Rows.concatenate(parts, extractor.spec.width)

    def _voice(self, utterance: Utterance) -> Rows:
        samples, begin_s = _sound(utterance)
        extractor = self._extractors.voice()
        lead = 0 if utterance.audio is None else round(LEAD_S * SAMPLE_RATE_HZ)
        padded = np.pad(samples, (lead, -(lead + len(samples)) % HOP))
        # Blocks of any size give the same rows.
        return extractor.push(padded, begin_s - lead / SAMPLE_RATE_HZ)

    def _recorded(self, utterance: Utterance, modality: Modality) -> Rows:
        recording = self._recording(_named(utterance, "session"))
        return recording.features(modality, utterance.start_s, utterance.end_s)

    def _recorded_words(self, utterance: Utterance) -> Rows:
        if not utterance.text:
            recording = self._recording(_named(utterance, "session"))
            return self._read(recording.spoken(utterance.start_s, utterance.end_s))
        typed, voice = typed_words(utterance.text, utterance.id), self._recorded(utterance, Modality.AUDIO)
        return self._ending(typed, float(voice.times_s[-1])) if len(voice) else self._read(list(typed))

    def _spoken(self, utterance: Utterance) -> Rows:
        samples, begin_s = _sound(utterance)
        text = utterance.text or ""
        words: list[Word] = []
        if len(samples) <= LONGEST_S * SAMPLE_RATE_HZ:
            words = self._extractors.speech.time_words(samples, text, begin_s)
        likelihood = np.mean(np.log([word.probability + 1e-9 for word in words])) if words else -np.inf
        if likelihood < np.log(SAID):
            typed, stretches = typed_words(text, utterance.id), voiced(samples)
            if not stretches:
                return self._read(list(typed))
            return self._ending(typed, begin_s + stretches[-1][1])
        return self._read(words)

    def _heard(self, utterance: Utterance) -> Rows:
        samples, begin_s = _sound(utterance)
        words: list[Word] = []
        for start_s, end_s in voiced(samples):
            stretch = samples[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)]
            words += self._extractors.speech.transcribe(stretch, begin_s + start_s)
        return self._read(words)

    def _read(self, words: list[Word]) -> Rows:
        """Reads a window's worth of words of a long recording at a time, from the newest back, as live reads them."""
        text, parts = self._extractors.text, []
        while words:
            newest = [word for word in words if word.end_s > words[-1].end_s - text.spec.window_s]
            parts.append(text.extract(newest))
            words = words[: -len(newest)]
        return Rows.concatenate(parts[::-1], text.spec.width)

    def _ending(self, words: tuple[Word, ...], end_s: float) -> Rows:
        """Typed words as if spoken until `end_s`, faster if there is little time or the window is too short."""
        rows = self._extractors.text.extract(words)
        if not len(rows):
            return rows
        room_s = min(0.98 * self._extractors.text.spec.window_s, end_s)
        faster = min(1.0, room_s / max(rows.times_s[-1], 1e-9))
        return Rows(end_s + (rows.times_s - rows.times_s[-1]) * faster, rows.values)


def typed_words(text: str, key: str) -> tuple[Word, ...]:
    """The words of a typed text, timed as if spoken; `key` fixes the jitter of their durations."""
    words = text.replace("\u2019", "'").split()
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big"))
    ends = np.cumsum(WORD_S * generator.uniform(0.6, 1.4, len(words)))
    starts = np.concatenate([[0.0], ends[:-1]]) if len(words) else ends
    timed = zip(words, starts.tolist(), ends.tolist(), strict=True)
    return tuple(Word(word, round(start, 3), round(end, 3)) for word, start, end in timed)


def voiced(samples: NDArray[np.float32]) -> list[tuple[float, float]]:
    """Stretches of speech in seconds from the first sample, none longer than what is recognised at once.

    Pauses shorter than 0.6 s do not part them, unless a stretch would be too long.
    """
    speaking = VoiceActivity().push(samples)
    longest = int(LONGEST_S * SAMPLE_RATE_HZ / VOICE_FRAME) - _LEAD - _TAIL
    stretches: list[list[int]] = []
    for frame in np.flatnonzero(speaking).tolist():
        if stretches and frame - stretches[-1][1] <= _PAUSE and frame - stretches[-1][0] < longest:
            stretches[-1][1] = frame + 1
        else:
            stretches.append([frame, frame + 1])
    result: list[tuple[float, float]] = []
    for begin, end in stretches:
        first = max(begin - _LEAD, 0 if not result else round(result[-1][1] * SAMPLE_RATE_HZ / VOICE_FRAME))
        last = min(end + _TAIL, len(speaking))
        result.append((first * VOICE_FRAME / SAMPLE_RATE_HZ, last * VOICE_FRAME / SAMPLE_RATE_HZ))
    return result


def _typed(utterance: Utterance) -> tuple[Word, ...]:
    return utterance.words if utterance.words is not None else typed_words(utterance.text or "", utterance.id)


def _sound(utterance: Utterance) -> tuple[NDArray[np.float32], float]:
    return media.sound(_named(utterance, "sound"), utterance.start_s, utterance.end_s)


def _named(utterance: Utterance, kind: Literal["image", "video", "session", "sound"]) -> Path:
    path: Path | None = getattr(utterance, kind)
    if path is None:
        raise ValueError(f"{utterance.id}: no {kind} in it")
    return path
