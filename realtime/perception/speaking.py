"""Who is speaking: whose mouth moves as that of the voice that is heard must.

Sound is turned into the lips that make it (`dhmd.features.lips`). Stretches of the last seconds are given to the people
whose own lips agree with them best, all at once: what is decided a little later holds from the moment it began. Nobody
is given a stretch with whom no lips agree: a voice from outside the picture, a radio. Where the sound is of several
voices, and the lips of two people or more move, they speak at once.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dhmd.features.lips import CHUNK, FRAME, Heard, HeardLips, LipNetwork, Mouth, mouth_of
from dhmd.features.speech import VOICE_FRAME
from dhmd.features.timeline import SAMPLE_RATE_HZ, SampleTimeline
from realtime.capture.samples import AudioBlock

__all__ = ["Listened", "Mouth", "Speakers", "Turn", "mouth_of"]

TICK: Final = 2 * FRAME
"""Samples between the moments at which lips are compared: 40 ms."""
STEP: Final = 2
"""Ticks after which it is decided anew: 80 ms."""
LAGS: Final = np.arange(-3, 4)
"""Ticks by which pictures may be ahead of the sound (negative) or behind it."""
LONGEST: Final = 50
"""Ticks of a stretch that are compared at once, at most."""
LEAST: Final = 10
"""Ticks of voice that tell something."""
UNDECIDED: Final = 40
"""Steps after which what was decided stays."""
KEPT_S: Final = 60.0
"""For so long turns are kept."""

WEIGHT: Final = np.array([1.0, 0.5, 0.5])
"""Of the agreement of each number of a mouth."""
STILL: Final = np.array([0.006, 0.008, 0.004])
"""Movement of each number of a mouth below which it is the landmarks' noise."""
AGREES: Final = 0.75
"""Agreement above which lips are rather those of the voice; 2 is perfect."""
SILENCE: Final = 3
"""Steps without voice after which nobody goes on speaking: who speaks next is found anew."""
BEGINS: Final = 0.38
"""What a speaker who begins after silence must gain, in seconds of agreement."""
CHANGE: Final = 0.5
"""What a change of speaker without silence must gain."""
PER_LAG: Final = 0.06
"""Agreement that is worth a tick of lag beside the one that is usual in this stream, at first none."""
USUAL: Final = 0.3
"""Part of the way that the usual lag goes to that of a turn that was told."""
AT_FIRST: Final = 6
"""Steps that voice lasts before it may change: a sentence is seldom begun by somebody else."""
LEAVES: Final = 0.9
"""What a change at first must gain, or nobody's voice after somebody's without silence."""
GOES_ON: Final = 0.05
"""What another stretch of the same speaker must gain."""

SEVERAL: Final = 2.0
"""Logit from which on several voices are heard."""
MOVES: Final = 2.0 * STILL[0]
"""Deviation of a mouth's opening around a moment, from which on it may be speaking then."""
AROUND_S: Final = 0.5
LATER: Final = (1, 2)
"""Chunks after one in which what is read of the voices is about it: the second around it on both sides."""

PATIENCE_S: Final = 0.5
"""For so long after the sound pictures are waited for."""
HOLE_S: Final = 0.25
"""Between two pictures of a mouth, at most, for what lies between to be known."""
PAUSE_S: Final = 0.5
"""A turn of one speaker goes on after a pause shorter than this."""
_BESIDE: Final = 2  # ticks beside voice that count as voice: lips begin before it
_STEP_S: Final = STEP * TICK / SAMPLE_RATE_HZ
_MOUTHS_S: Final = 5.0
_TICKS: Final = CHUNK * FRAME // TICK  # of a chunk


@dataclass(frozen=True, slots=True)
class Turn:
    """A stretch of voice, in seconds of the stream's clock.

    person: who speaks; None: nobody in sight, or it is not clear who. overlapped: several speak at once, of whom the
    lips of this person agree best with what is heard.
    """

    start_s: float
    end_s: float
    person: int | None
    overlapped: bool = False


@dataclass(frozen=True, slots=True)
class _Step:
    """What is known of one step. value: of the best account of everything so far that ends with this speaker; before:
    the step and speaker from which that came. silence: steps without voice up to it; begun: the step after which voice
    began; lag: of each person's last stretch."""

    end_s: float
    voiced: bool
    silence: int
    begun: int
    value: dict[int | None, float]
    before: dict[int | None, tuple[int, int | None]]
    lag: dict[int | None, int]

    @property
    def likeliest(self) -> int | None:
        return max(self.value, key=lambda person: self.value[person])


class Listened(NamedTuple):
    """A block of sound, and what it completes of the lips that make it."""

    block: AudioBlock
    heard: Heard


class _Told(NamedTuple):
    """What is known of a step."""

    end_s: float
    voiced: bool
    person: int | None
    overlapped: bool


@dataclass(slots=True)
class _Sound:
    """One continuous sound as far as it is told. The first tick held is `first`."""

    lips: deque[NDArray[np.float32]] = field(default_factory=lambda: deque(maxlen=LONGEST + 100))
    ticks: int = 0
    voice: deque[bool] = field(default_factory=lambda: deque(maxlen=512))
    voices: int = 0
    several: deque[float] = field(default_factory=lambda: deque(maxlen=64))

    def spoken(self, tick: int) -> bool:
        """Whether there is voice at a tick or shortly beside it."""
        first, last = ((tick + beside) * TICK // VOICE_FRAME for beside in (-_BESIDE, _BESIDE))
        start = self.voices - len(self.voice)
        return any(self.voice[i - start] for i in range(max(first, start), min(last + 1, self.voices)))

    def mixed(self, step: int) -> bool | None:
        """Whether several voices are heard at a step; None: it is not known yet."""
        chunk, chunks = (step - 1) * STEP // _TICKS, self.ticks // _TICKS
        if chunk + LATER[-1] >= chunks:
            return None
        told = [self.several[chunk + later - chunks] for later in LATER if chunks - chunk - later <= len(self.several)]
        return bool(told) and min(told) > -math.inf and sum(told) / len(told) > SEVERAL


class Speakers:
    """Finds whose mouth moves with the sound. `see`, `hear` and `turns` may come from several threads, `listen`, which
    takes nearly all of the time, from another one, ahead of them."""

    def __init__(self, network: LipNetwork) -> None:
        self._lock = threading.Lock()
        self._lips = HeardLips(network)
        self._listened = SampleTimeline()
        self._timeline = SampleTimeline()
        self._mouths: dict[int, deque[tuple[float, Mouth]]] = {}
        self._seen_s = -math.inf
        self._lag = 0.0
        self._decided: deque[_Told] = deque(maxlen=round(KEPT_S / _STEP_S))
        self._several: dict[int, bool] = {}
        """Whether several speak, by the number of the step, as far as it is known."""
        self._begin()

    def see(self, t_s: float, mouths: Mapping[int, Mouth]) -> None:
        """Take the mouths in sight in a picture, by person. t_s: its capture time."""
        with self._lock:
            self._seen_s = t_s
            for person, mouth in mouths.items():
                self._mouths.setdefault(person, deque(maxlen=256)).append((t_s, mouth))
            for person, seen in list(self._mouths.items()):
                while seen and seen[0][0] < t_s - _MOUTHS_S:
                    seen.popleft()
                if not seen:
                    del self._mouths[person]
            self._advance()

    def due(self, block: AudioBlock) -> bool:
        """Returns whether `listen` has much to compute for this block."""
        return self._lips.due(len(block.samples))

    def listen(self, block: AudioBlock) -> Listened:
        """Find what the next block of sound tells of lips, for `hear`."""
        if self._listened.append(len(block.samples), block.captured_s):
            self._lips.reset()
        return Listened(block, self._lips.push(block.samples))

    def hear(self, listened: Listened) -> None:
        """Take in the next block of sound."""
        block, heard = listened
        with self._lock:
            if self._timeline.append(len(block.samples), block.captured_s):
                self._decide(0)
                self._begin()
            sound = self._sound
            sound.voice.extend(heard.voice.tolist())
            sound.voices += len(heard.voice)
            sound.several.extend(heard.several.tolist())
            lips = heard.lips.reshape(-1, TICK // FRAME, heard.lips.shape[1]).mean(axis=1)
            sound.lips.extend(lips)
            sound.ticks += len(lips)
            self._advance()

    def turns(self, since_s: float) -> list[Turn]:
        """Turns that end after a time, oldest first; the newest may still change."""
        with self._lock:
            steps = self._steps_since(since_s)
        turns: list[Turn] = []
        for (voiced, person, overlapped), group in groupby(steps, key=lambda step: step[1:]):
            if not voiced:
                continue
            ends_s = [step.end_s for step in group]
            start_s = ends_s[0] - _STEP_S
            before = turns[-1] if turns else None
            if (
                before is not None
                and (before.person, before.overlapped) == (person, overlapped)
                and start_s - before.end_s < PAUSE_S
            ):
                start_s = turns.pop().start_s
            turns.append(Turn(start_s, ends_s[-1], person, overlapped))
        return turns

    def _begin(self) -> None:
        self._sound = _Sound()
        self._steps: deque[_Step] = deque([_Step(-math.inf, False, 0, 0, {None: 0.0}, {}, {})])
        self._first = 0  # number of the first step that is held
        self._path: list[int | None] = [None]
        self._several = {}

    def _steps_since(self, since_s: float) -> list[_Told]:
        """What is known of steps, oldest first. Until it is known, as many go on speaking as spoke before."""
        told, overlapped = list(self._decided), False
        for number, (step, person) in enumerate(zip(self._steps, self._path, strict=True), self._first):
            known = self._overlapped(number, step)
            overlapped = step.silence < SILENCE and overlapped if known is None else known
            told.append(_Told(step.end_s, step.voiced, person, overlapped))
        return [step for step in told if step.end_s > since_s]

    def _overlapped(self, number: int, step: _Step) -> bool | None:
        """Whether several voices are heard at a step while the lips of several people move; None: not known yet."""
        if number not in self._several:
            mixed = self._sound.mixed(number)
            if mixed is None or self._seen_s < step.end_s + AROUND_S:
                return None
            self._several[number] = mixed and sum(_moves(seen, step.end_s) for seen in self._mouths.values()) > 1
        return self._several[number]

    def _advance(self) -> None:
        """Decide about the steps whose sound and pictures are here."""
        sound = self._sound
        while (number := self._first + len(self._steps)) * STEP <= sound.ticks:
            end_s = self._timeline.time_of(number * STEP * TICK)
            ahead_s = LAGS[-1] * TICK / SAMPLE_RATE_HZ
            newest_s = self._timeline.time_of(sound.voices * VOICE_FRAME)
            if self._seen_s < end_s + ahead_s and newest_s < end_s + PATIENCE_S:
                return
            self._steps.append(self._step(number, end_s))
            self._path = list(self._likeliest_path())
            self._decide(UNDECIDED)

    def _decide(self, leave: int) -> None:
        """Let stay as it is what was decided, but for the newest steps."""
        while len(self._steps) > max(leave, 1):
            step = self._steps.popleft()
            person = self._path.pop(0)
            if step.end_s > -math.inf:
                overlapped = self._overlapped(self._first, step) or False
                self._decided.append(_Told(step.end_s, step.voiced, person, overlapped))
            self._several.pop(self._first, None)
            self._first += 1

    def _likeliest_path(self) -> Iterator[int | None]:
        """The speaker of each step held, of the best account of them all."""
        people: list[int | None] = []
        number, person = self._first + len(self._steps) - 1, self._steps[-1].likeliest
        while number >= self._first:
            earlier, before = self._steps[number - self._first].before.get(person, (self._first - 1, None))
            people += [person] * (number - max(earlier, self._first - 1))
            number, person = earlier, before
        return reversed(people)

    def _step(self, number: int, end_s: float) -> _Step:
        """Accounts that end with this step; each person's last stretch begins after one of the steps held."""
        last = self._steps[-1]
        likeliest = last.likeliest
        voiced = any(self._sound.spoken(tick) for tick in range((number - 1) * STEP, number * STEP))
        silence = 0 if voiced else last.silence + 1
        if silence >= SILENCE:
            if likeliest is not None:
                self._lag += USUAL * (last.lag[likeliest] - self._lag)
            nobody: dict[int | None, float] = {None: last.value[likeliest]}
            return _Step(end_s, False, silence, number, nobody, {None: (number - 1, likeliest)}, {})
        step = _Step(end_s, voiced, silence, last.begun, {}, {}, dict(last.lag))
        if not voiced:
            step.value.update(last.value)
            step.before.update({person: (number - 1, person) for person in last.value})
            return step
        step.value[None], step.before[None] = last.value.get(None, -math.inf), (number - 1, None)
        if (gone := last.value[likeliest] - LEAVES) > step.value[None]:
            step.value[None], step.before[None] = gone, (number - 1, likeliest)
        self._extend(step, number)
        return step

    def _extend(self, step: _Step, number: int) -> None:
        """Put in the best accounts that end with each person."""
        ticks = range(max(number * STEP - LONGEST, self._first * STEP, step.begun * STEP), number * STEP)
        starts = range(number - len(ticks) // STEP, number)
        spoken = np.array([self._sound.spoken(tick) for tick in ticks])
        for person, gain, lags in self._gains(ticks, spoken):
            for start, gained, lag in zip(starts, gain.tolist(), lags.tolist(), strict=True):
                earlier = self._steps[start - self._first]
                came = earlier.likeliest
                best = earlier.value[came] - _price(start - step.begun)
                if (own := earlier.value.get(person, -math.inf) - GOES_ON) >= best:
                    came, best = person, own
                if best + gained > step.value.get(person, -math.inf):
                    step.value[person], step.before[person], step.lag[person] = best + gained, (start, came), lag

    def _gains(
        self, ticks: range, spoken: NDArray[np.bool_]
    ) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.int_]]]:
        """Of each person, what stretches to the end gain that begin at every step of the ticks, and their lags."""
        held = self._sound.ticks - len(self._sound.lips)
        heard = np.array([self._sound.lips[tick - held] for tick in ticks], np.float64)
        times_s = self._timeline.time_of(ticks[0] * TICK) + np.arange(LAGS[0], len(ticks) + LAGS[-1]) * (
            TICK / SAMPLE_RATE_HZ
        )
        for person, seen in self._mouths.items():
            lips, known = _at(times_s, seen)
            if not known.any():
                continue
            shifts = np.arange(len(LAGS))[:, None] + np.arange(len(ticks))  # (lags, ticks)
            counts = (known[shifts] & spoken).astype(np.float64)
            agreement = _agreement(heard[None], lips[shifts], counts[..., None])[:, ::STEP]
            agreement -= PER_LAG * np.abs(LAGS - self._lag)[:, None]
            duration = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1][:, ::STEP]
            gain = np.where(duration >= LEAST, duration * (TICK / SAMPLE_RATE_HZ) * (agreement - AGREES), -np.inf)
            yield person, gain.max(axis=0), LAGS[gain.argmax(axis=0)]


def _moves(seen: deque[tuple[float, Mouth]], at_s: float) -> bool:
    """Whether a mouth opens and closes around a moment."""
    openings = [mouth.opening for t_s, mouth in seen if abs(t_s - at_s) <= AROUND_S]
    return len(openings) > 1 and float(np.std(openings)) > MOVES


def _price(steps: int) -> float:
    """What a speaker must gain who begins so many steps after the voice did."""
    return BEGINS if steps == 0 else LEAVES if steps < AT_FIRST else CHANGE


def _at(
    times_s: NDArray[np.float64], seen: deque[tuple[float, Mouth]]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Mouths (N, 3) at times between those of the pictures, and where they are known (N,)."""
    seen_s = np.array([t_s for t_s, _ in seen])
    mouths = np.array([mouth for _, mouth in seen])
    after = np.searchsorted(seen_s, times_s)
    inside = (after > 0) & (after < len(seen_s))
    after = np.where(inside, after, min(1, len(seen_s) - 1))
    known = inside & (seen_s[after] - seen_s[after - 1] <= HOLE_S)
    lips = np.stack([np.interp(times_s, seen_s, number) for number in mouths.T], axis=1)
    return lips - lips.mean(axis=0), known


def _agreement(
    heard: NDArray[np.float64], lips: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Weighted correlations of what is heard and seen from each tick to the end: (lags, ticks).

    heard: (1, ticks, 3); lips: (lags, ticks, 3); counts: (lags, ticks, 1).
    """

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(np.cumsum((values * counts)[:, ::-1], axis=1)[:, ::-1] / total)

    total = np.maximum(np.cumsum(counts[:, ::-1], axis=1)[:, ::-1], 1.0)
    mean_heard, mean_lips = mean(heard), mean(lips)
    covariance = mean(heard * lips) - mean_heard * mean_lips
    of_heard = np.maximum(mean(heard * heard) - mean_heard**2, 0) + 1e-2
    of_lips = np.maximum(mean(lips * lips) - mean_lips**2, 0) + STILL**2
    return np.asarray((covariance / np.sqrt(of_heard * of_lips)) @ WEIGHT)
