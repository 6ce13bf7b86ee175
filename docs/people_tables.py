"""Measure who is found to speak, and whether several do: the tables of docs/performance.md, on composites of people who
talk.

.venv/bin/python docs/people_tables.py [../shared/clips]

Of each clip the mouth is followed once, at 15 pictures a second; people are put side by side by their mouths, and heard
one at a time, or two at once. Each pair of the six GRID talkers is judged by a reading of lips that was learned from
the other four. Whether several are heard is judged by the reading that ships, which was learned from none of them.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from dhmd.assets.store import fetch
from dhmd.features.landmarks import FaceLandmarks
from dhmd.features.lips import LipNetwork, Mouth, mouth_of
from dhmd.features.speech import VOICE_FRAME, VoiceActivity
from dhmd.features.timeline import SAMPLE_RATE_HZ
from dhmd.media.reader import MediaReader
from realtime.capture.samples import AudioBlock
from realtime.perception.speaking import Listened, Speakers, Turn
from training.encoders.lips import Talker, train

GRID: Final = tuple(f"grid_{name}" for name in ("bbaf2n", "brbk7n", "lbax4n", "lrwp9a", "sbia1a", "swwp2s"))
MEAD: Final = "mead_sad_1080p_speech"
MOVES: Final = ("mead_disgusted", "mead_happy", "mead_sad")
SMILES: Final = "single_face_smile"
OUTSIDE: Final = -1
RATE_HZ: Final = 15
LATE_S: Final = 0.06
PHASES_S: Final = (0.0, 0.03) * 3
"""Of the first picture; each time, who is amid a sentence is so elsewhere."""
APART_S: Final = (0.3, 2.0)
"""By how much sentences begin apart that do not begin together."""
BLOCK: Final = 800
PAUSE_S: Final = 2.0
NOISE: Final = 0.002
SOFTER_DB: Final = (0, 6, 12)

Others = Literal["together", "apart", "still"]
"""What who is not heard does: begin a sentence with the speaker, be amid one, or hold still."""


@dataclass(frozen=True)
class Composite:
    """people: clips, side by side. script: who is heard in each part, by place; OUTSIDE; None: a pause. outside: the
    clip whose voice is heard then. ahead_s: of the sound. joined: no pause between parts."""

    people: Sequence[str]
    script: Sequence[int | None]
    others: Others = "together"
    outside: str | None = None
    ahead_s: float = 0.0
    joined: bool = False


@dataclass
class Found:
    """Frames of speech, and those given to the right one and to a wrong one."""

    frames: int = 0
    right: int = 0
    wrong: int = 0

    def __add__(self, other: Found) -> Found:
        return Found(self.frames + other.frames, self.right + other.right, self.wrong + other.wrong)


@dataclass(frozen=True)
class Share:
    """Some of all frames."""

    some: int = 0
    frames: int = 0

    @classmethod
    def of(cls, told: NDArray[np.bool_]) -> Share:
        return cls(int(told.sum()), len(told))

    def __add__(self, other: Share) -> Share:
        return Share(self.some + other.some, self.frames + other.frames)

    def __str__(self) -> str:
        return f"{self.some / self.frames:.0%}"


@dataclass
class Row:
    told: str
    composites: list[Composite] = field(default_factory=list)
    summed: bool = True


def followed(clip: Path) -> Talker:
    """A clip as a talker: the mouth of its largest face, in every picture."""
    times_s, mouths = [], []
    with FaceLandmarks(fetch("face-landmarker") / "face_landmarker.task") as landmarks:
        for picture in MediaReader(clip).pictures():
            if faces := landmarks.find(picture.image(), picture.time_s):
                times_s.append(picture.time_s)
                mouths.append(mouth_of(max(faces, key=lambda face: face.box[2] - face.box[0]).landmarks))
    blocks = list(MediaReader(clip).sound()) if "grid" in clip.name or MEAD in clip.name else []
    sound = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    return Talker(sound, np.array(times_s) - times_s[0], np.array(mouths, np.float32))


def rows(pair: Sequence[str]) -> list[Row]:
    """The table's lines, with the composites of one pair of talkers."""
    a, b = pair
    o = [name for name in GRID if name not in pair]
    together = Composite([a, b], [0, 1, 0, None, 1])
    apart = Composite([a, b], [0, 1, 1, 0], "apart")
    joined = [
        Composite(people, script, others, outside, joined=True)
        for others in ("apart", "still")
        for people, script, outside in (([a, b], [0, 1, 0, 1, 0], None), ([a, MEAD], [0, 1, 0], None))
    ]
    return [
        Row(
            "two, and three, whose sentences do not begin together",
            [apart, Composite([a, b, o[1]], [1, 0, 1], "apart")],
        ),
        Row("two, the other still", [Composite([a, b], [1, 0, None, 1, 0], "still")]),
        Row("GRID and MEAD", [Composite([a, MEAD], [0, 1, 0], "apart")]),
        Row("two whose sentences, of one grammar, begin in the same tenth of a second", [together]),
        Row("three of whom two do so", [Composite([a, b, o[0]], [0, 1, 0, 1])]),
        Row("the same two, sound 80 ms early", [Composite([a, b], [0, 1, 0], ahead_s=0.08)]),
        Row("the same two, sound 80 ms late", [Composite([a, b], [1, 0, 1], ahead_s=-0.08)]),
        Row("beside two MEAD talkers without sound", [Composite([a, MOVES[1], MOVES[2]], [0, 0])]),
        Row("beside one of them, and a GRID talker at another time", [Composite([a, MOVES[0], b], [0, 2, 0], "apart")]),
        Row(
            "beside somebody who smiles, and a GRID talker who begins with the speaker",
            [Composite([a, SMILES, b], [0, 2])],
        ),
        Row("changes without any pause", joined, summed=False),
        Row(
            "a voice from outside the picture, of GRID",
            [
                Composite([a, o[0], MOVES[1]], [OUTSIDE] * 3, "apart", b),
                Composite([a, SMILES], [OUTSIDE] * 2, "still", b),
            ],
            summed=False,
        ),
        Row("the same, of MEAD", [Composite([a, b], [OUTSIDE] * 3, "apart", MEAD)], summed=False),
        Row(
            "the same, all in sight beginning a sentence of its grammar with it",
            [Composite([a, o[2], o[3]], [OUTSIDE, OUTSIDE, None, OUTSIDE], "together", b)],
            summed=False,
        ),
    ]


class Studio:
    """Puts composites together and has them judged. talkers: clips by name."""

    def __init__(self, talkers: dict[str, Talker], seed: int = 0) -> None:
        self._talkers = talkers
        self._random = np.random.default_rng(seed)

    def judged(self, composite: Composite, network: LipNetwork) -> Found:
        sound, parts, speaks = self._heard(composite)
        listened, found = _listened(network, sound), Found()
        for phase_s in PHASES_S:
            offsets_s = self._random.uniform(*APART_S, len(composite.people))
            times_s = np.arange(phase_s, len(sound) / SAMPLE_RATE_HZ, 1 / RATE_HZ)
            pictures = [(t_s + composite.ahead_s, self._seen(composite, parts, offsets_s, t_s)) for t_s in times_s]
            found += _compared(_played(Speakers(network), listened, pictures), speaks)
        return found

    def at_once(self, one: str, other: str, softer_db: float | None, network: LipNetwork) -> tuple[Share, Share]:
        """Two side by side who both move their lips; the other is softer, or not heard. Returns what is told to be
        several at once: of the frames of both voices, and of those of one."""
        talkers = [self._talkers[name] for name in (one, other)]
        length = min(len(talker.sound) for talker in talkers) // VOICE_FRAME * VOICE_FRAME
        sounds = [talker.sound[:length] for talker in talkers]
        voices = [VoiceActivity().push(sound) for sound in sounds]
        loud = [
            np.sqrt(np.mean(sound[np.repeat(voice, VOICE_FRAME)] ** 2))
            for sound, voice in zip(sounds, voices, strict=True)
        ]
        if softer_db is None:
            sound, voices[1] = sounds[0], np.zeros_like(voices[1])
        else:
            sound = sounds[0] + sounds[1] * np.float32(loud[0] / loud[1] * 10 ** (-softer_db / 20))
        sound = sound + NOISE * self._random.standard_normal(length).astype(np.float32)
        sound = np.concatenate([sound, np.zeros(SAMPLE_RATE_HZ, np.float32)])
        both = Composite([one, other], [])
        times_s = np.arange(0, len(sound) / SAMPLE_RATE_HZ, 1 / RATE_HZ)
        pictures = [(t_s, self._seen(both, [(0.0, 0.0, None)], np.zeros(2), t_s)) for t_s in times_s]
        turns = _played(Speakers(network), _listened(network, sound), pictures).turns(0.0)
        told = np.array(
            [(turn := _turn_at(turns, number)) is not None and turn.overlapped for number in range(len(voices[0]))]
        )
        return Share.of(told[voices[0] & voices[1]]), Share.of(told[voices[0] ^ voices[1]])

    def _heard(
        self, composite: Composite
    ) -> tuple[NDArray[np.float32], list[tuple[float, float, int | None]], list[int | None]]:
        """The sound; begin of each part, of its clip, and who is heard; and who speaks in each VOICE_FRAME."""
        sounds, parts, speaks, begin = [], list[tuple[float, float, int | None]](), list[int | None](), 0
        for who in composite.script:
            sound = np.zeros(round(PAUSE_S * SAMPLE_RATE_HZ), np.float32)
            if who is not None:
                name = composite.outside if who == OUTSIDE else composite.people[who]
                sound = self._talkers[str(name)].sound
            sound = sound[: len(sound) // VOICE_FRAME * VOICE_FRAME]
            voiced, skipped = VoiceActivity().push(sound), 0
            if composite.joined and voiced.any():
                skipped, last = np.flatnonzero(voiced)[[0, -1]].tolist()
                voiced, sound = voiced[skipped : last + 1], sound[skipped * VOICE_FRAME : (last + 1) * VOICE_FRAME]
            origin = begin - skipped * VOICE_FRAME
            parts.append((begin / SAMPLE_RATE_HZ, origin / SAMPLE_RATE_HZ, who))
            speaks += [who if there else None for there in voiced.tolist()]
            sounds.append(sound)
            begin += len(sound)
        whole = np.concatenate([*sounds, np.zeros(SAMPLE_RATE_HZ, np.float32)])
        return whole + NOISE * self._random.standard_normal(len(whole)).astype(np.float32), parts, speaks

    def _seen(
        self,
        composite: Composite,
        parts: Sequence[tuple[float, float, int | None]],
        offsets_s: NDArray[np.float64],
        t_s: float,
    ) -> dict[int, Mouth]:
        _, origin_s, speaking = next(part for part in reversed(parts) if part[0] <= t_s)
        mouths = {}
        for person, name in enumerate(composite.people):
            talker, at_s = self._talkers[name], t_s - origin_s
            if person != speaking:
                if not len(talker.sound) or composite.others == "apart":
                    at_s += offsets_s[person]
                elif composite.others == "still":
                    at_s = 0.0
                at_s %= talker.times_s[-1]
            number = int(np.searchsorted(talker.times_s, at_s + 1e-6, side="right")) - 1
            mouths[person] = Mouth(*talker.mouths[max(number, 0)].tolist())
        return mouths


def _listened(network: LipNetwork, sound: NDArray[np.float32]) -> list[Listened]:
    ears = Speakers(network)
    return [
        ears.listen(AudioBlock(sound[start : start + BLOCK], t_s, t_s))
        for start in range(0, len(sound) - BLOCK + 1, BLOCK)
        for t_s in [start / SAMPLE_RATE_HZ]
    ]


def _turn_at(turns: Sequence[Turn], number: int) -> Turn | None:
    """Whose turn it is in the middle of a VOICE_FRAME."""
    t_s = (number + 0.5) * VOICE_FRAME / SAMPLE_RATE_HZ
    return next((turn for turn in turns if turn.start_s <= t_s <= turn.end_s), None)


def _played(
    speakers: Speakers, listened: Sequence[Listened], pictures: Sequence[tuple[float, dict[int, Mouth]]]
) -> Speakers:
    sounds = [(one.block.end_s, one) for one in listened]
    seen = [(t_s + LATE_S, (t_s, mouths)) for t_s, mouths in pictures]
    for _, what in sorted([*sounds, *seen], key=lambda one: one[0]):
        if isinstance(what, Listened):
            speakers.hear(what)
        else:
            speakers.see(*what)
    return speakers


def _compared(speakers: Speakers, speaks: Sequence[int | None]) -> Found:
    turns, found = speakers.turns(0.0), Found()
    for number, who in enumerate(speaks):
        if who is not None:
            turn = _turn_at(turns, number)
            person = None if turn is None else turn.person
            found += Found(1, person == who, person not in (None, who))
    return found


def tables(clips: Path) -> Iterator[str]:
    """Lines of both tables, in Markdown."""
    names = (*GRID, MEAD, *MOVES, SMILES)
    talkers = {name: followed(next(clips.glob(f"{name}.*"))) for name in names}
    yield from speakers_table(talkers)
    yield ""
    yield from at_once_table(Studio(talkers))


def speakers_table(talkers: dict[str, Talker]) -> Iterator[str]:
    studio, totals = Studio(talkers), dict[str, Found]()
    summed = Found()
    for pair in zip(GRID[::2], GRID[1::2], strict=True):
        network = train([talkers[name] for name in GRID if name not in pair])
        for row in rows(pair):
            found = sum((studio.judged(composite, network) for composite in row.composites), Found())
            totals[row.told] = totals.get(row.told, Found()) + found
            if row.summed:
                summed += found
    totals["all but the last four together"] = summed
    yield "| composites, share of the time of speech | given to the right one | to a wrong one |"
    yield "| --- | --- | --- |"
    for told, found in totals.items():
        right = "" if "voice" in told or "the same, " in told else f"{found.right / found.frames:.1%}"
        yield f"| {told} | {right} | {found.wrong / found.frames:.1%} |"


def at_once_table(studio: Studio) -> Iterator[str]:
    network = LipNetwork.load()
    yield "| told to be several at once | of the time of both voices | of the rest |"
    yield "| --- | --- | --- |"
    for softer_db in (*SOFTER_DB, None):
        both, rest = Share(), Share()
        for one, other in itertools.permutations((*GRID, MEAD), 2):
            if softer_db == 0 and one > other:
                continue
            more = studio.at_once(one, other, softer_db, network)
            both, rest = both + more[0], rest + more[1]
        told = "one of the two is heard" if softer_db is None else f"the second {softer_db} dB softer"
        yield f"| {told} | {both if both.frames else ''} | {rest} |"


if __name__ == "__main__":
    where = Path(sys.argv[1] if len(sys.argv) > 1 else "../shared/clips")
    if not (where / f"{GRID[0]}.mpg").is_file():
        print(f"{where} has no clips of talkers; nothing measured")
    else:
        torch.set_num_threads(1)
        for line in tables(where):
            print(line, flush=True)
