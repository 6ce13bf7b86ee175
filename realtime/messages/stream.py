"""Models of all that is published of a stream beside the full estimate: see docs/mqtt.md and topics.py beside this.

All times are unix seconds; under `--pace max` they are the file's own, as in the estimate.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from dhmd.labels import EMOTIONS
from realtime.messages.estimate import Dropped, EmotionName, Estimate, Part, Probability, SentimentValue, unset
from realtime.workers import WorkerState

COMPACT_LIMIT = 200
"""Bytes that a compact estimate takes at most."""

Unix = Annotated[float, Field(description="unix seconds")]
Speech = Literal["nobody", "person", "outside", "overlap"]
Percent = Annotated[int, Field(ge=0, le=100)]


class Compact(Part):
    """The estimate in at most 200 bytes, for small machines. Null where nothing is perceived."""

    v: Literal[1] = 1
    n: int = Field(ge=0, description="number of the estimate: seq of the full one")
    t: Unix
    e: EmotionName | None = Field(description="top emotion")
    p: Probability | None = Field(description="its probability")
    q: tuple[Percent, ...] = Field(
        description=f"percent of {', '.join(EMOTIONS)}, in this order; empty when nothing is perceived"
    )
    s: SentimentValue | None = Field(description="sentiment")
    va: float | None = Field(ge=-1, le=1, description="valence")
    ar: float | None = Field(ge=-1, le=1, description="arousal")
    m: str = Field(pattern="^f?v?w?$", description="what is perceived: f face, v voice, w words")

    @classmethod
    def of(cls, estimate: Estimate) -> Compact:
        def rounded(value: float | None) -> float | None:
            return None if value is None else round(value, 2)

        emotions, parts = estimate.emotions or {}, estimate.modalities
        seen = (("f", parts.vision), ("v", parts.audio), ("w", parts.text))
        # The fields are those of an estimate, which was validated when it was built.
        return cls.model_construct(
            n=estimate.seq,
            t=round(estimate.t, 2),
            e=estimate.top,
            p=round(emotions[estimate.top], 3) if estimate.top else None,
            q=tuple(round(100 * p) for p in emotions.values()),
            s=rounded(estimate.sentiment.value) if estimate.sentiment else None,
            va=rounded(estimate.valence),
            ar=rounded(estimate.arousal),
            m="".join(letter for letter, part in seen if part.present),
        )


class SpokenWord(Part):
    text: str
    start: Unix
    end: Unix
    final: bool = Field(description="final words never change, partial ones may")
    person: int | None = Field(
        default=None,
        exclude_if=unset,
        description="number of who said it, where several are followed; missing where it is nobody in view, or unknown",
    )
    overlapped: Literal[True] | None = Field(
        default=None,
        exclude_if=unset,
        description="several spoke at once, and it is the loudest one's word; missing otherwise",
    )


class Transcript(Part):
    """What one recognition changed: words that became final, and all that are partial now."""

    v: Literal[1] = 1
    final: str = Field(description="words that became final with this message; each is told once")
    partial: str = Field(description="words heard after the final ones; replaces what was partial before")
    words: tuple[SpokenWord, ...] = Field(description="the same with their times: final ones, then partial ones")
    skipped_s: float = Field(ge=0, description="seconds of speech left out so far, because recognition fell behind")


class Happening(Part):
    v: Literal[1] = 1
    t: Unix = Field(description="unix seconds at which it began, not at which it was told")


class EmotionChanged(Happening):
    """The top emotion is another and stayed so for a second."""

    event: Literal["emotion"] = "emotion"
    emotion: EmotionName | None = Field(description="null: nothing is perceived any more")
    before: EmotionName | None
    probability: Probability | None = Field(description="of the emotion when it was told")


class FaceAppeared(Happening):
    event: Literal["face_appeared"] = "face_appeared"


class FaceLeft(Happening):
    event: Literal["face_left"] = "face_left"


class SpeechBegan(Happening):
    event: Literal["speech_began"] = "speech_began"


class SpeechEnded(Happening):
    event: Literal["speech_ended"] = "speech_ended"


class PersonHappening(Happening):
    person: int = Field(ge=1, description="number of the person; told only where several are followed")


class PersonAppeared(PersonHappening):
    event: Literal["person_appeared"] = "person_appeared"


class PersonLeft(PersonHappening):
    event: Literal["person_left"] = "person_left"


class PersonSpeaks(PersonHappening):
    """A turn of speech is a person's, from its beginning."""

    event: Literal["person_speaks"] = "person_speaks"


class SeveralSpeak(Happening):
    """Several people speak at once; told only where several are followed."""

    event: Literal["several_speak"] = "several_speak"


AnyEvent = (
    EmotionChanged
    | FaceAppeared
    | FaceLeft
    | SpeechBegan
    | SpeechEnded
    | PersonAppeared
    | PersonSpeaks
    | PersonLeft
    | SeveralSpeak
)


class Event(RootModel[Annotated[AnyEvent, Field(discriminator="event")]]):
    """One of the things that happen; told apart by `event`."""


Side = Annotated[float, Field(ge=0, le=1)]


class Person(Part):
    """One person in view. Numbers count up from 1, tell nobody from before, and end with the run."""

    person: int = Field(ge=1)
    since: Unix = Field(description="unix seconds at which they came into view")
    box: tuple[Side, Side, Side, Side] = Field(description="x0, y0, x1, y1 of the face, as fractions of the picture")


class People(Part):
    """Who is in view and who speaks, where several are followed; told when it changes."""

    v: Literal[1] = 1
    t: Unix
    people: tuple[Person, ...]
    speech: Speech = Field(
        description="who speaks: nobody, a person in view, somebody outside the picture (or it is not known yet who), "
        "or several at once"
    )
    speaker: int | None = Field(description="number of the person who speaks")
    since: Unix | None = Field(description="unix seconds at which the speech began; null without any")


class Percentiles(Part):
    p50: float
    p95: float
    p99: float


class Latencies(Part):
    """Milliseconds of the last period; null without a measurement, as under --pace max."""

    capture_to_estimate: Percentiles | None
    capture_to_published: Percentiles | None = Field(description="handed to the network")
    inference: Percentiles | None


class Metrics(Part):
    """How the stream fares, every ten seconds."""

    v: Literal[1] = 1
    t: Unix
    period_s: float = Field(gt=0, description="seconds that rates and latencies are about")
    rate_hz: float = Field(ge=0, description="estimates a second")
    estimates: int = Field(ge=0, description="since the start")
    missed_ticks: int = Field(ge=0, description="estimates that were due and left out, since the start")
    latency_ms: Latencies
    dropped: Dropped
    undelivered: int = Field(ge=0, description="estimates that found no broker, since the start")
    memory_mb: float | None = Field(description="resident memory of the process; null where it cannot be read")


class WorkerReport(Part):
    """The state of one worker: video, audio, face, voice, transcript, recording; people, where several are followed."""

    state: WorkerState
    reason: str = Field(description="why it restarts, is paused, or failed; empty otherwise")
    restarts: int = Field(ge=0, description="since the start")


class StreamStatus(RootModel[Literal["online", "stopped", "offline"]]):
    """online; stopped: it ended; offline: its connection was lost (the broker says so for it)."""


class Claim(BaseModel):
    """Words between the runs of a stream. ask: whether there is another; held: there is; take: it shall end."""

    model_config = ConfigDict(frozen=True)

    run: str = Field(max_length=64)
    says: Literal["ask", "held", "take"]
    to: str | None = Field(default=None, max_length=64)
    """The run that is answered."""


class StateValue(RootModel[str]):
    """One value as plain text; None where there is none."""
