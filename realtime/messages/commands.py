"""Commands to a stream, and its answer, as models: see docs/mqtt.md."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import ConfigDict, Field, model_validator

from realtime.messages.estimate import EmotionName, Part, SentimentValue

LARGEST: Final = 1024
"""Most bytes of a command."""
LONGEST_MARK_S: Final = 300.0
LONGEST_SMOOTHING_S: Final = 30.0

CommandName = Literal["record", "pause", "mark", "hop", "smoothing"]


class Command(Part):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    id: str | None = Field(None, max_length=64, description="comes back with the answer")


class SetRecord(Command):
    """Start or stop a recording, into the folder named by --record-dir."""

    on: bool


class SetPause(Command):
    """Release camera and microphone, or open them again."""

    on: bool


class SetMark(Command):
    """Label what is recorded: the last seconds, or what lies between begin and end."""

    mark: Literal["last", "begin", "end"] = Field("last", description="a label given with end replaces that of begin")
    seconds: float | None = Field(None, gt=0, le=LONGEST_MARK_S, description="of last; null: those of the window")
    emotion: EmotionName | None = None
    sentiment: SentimentValue | None = None

    @model_validator(mode="after")
    def _of_one_kind(self) -> SetMark:
        if self.mark == "last" and self.emotion is None and self.sentiment is None:
            raise ValueError("a mark needs an emotion, a sentiment, or both")
        if self.mark != "last" and self.seconds is not None:
            raise ValueError(f"seconds belong to last; {self.mark} is now")
        return self


class SetHop(Command):
    """Change the time between two estimates. Not while a recording is made: it keeps one."""

    seconds: float = Field(ge=0.02, le=5.0)


class SetSmoothing(Command):
    """Average emotions and sentiment over time before they are published; 0: not."""

    seconds: float = Field(ge=0, le=LONGEST_SMOOTHING_S, description="after which an old value counts 1/e")


class Answer(Part):
    """Outcome of a command."""

    v: Literal[1] = 1
    command: CommandName | None = Field(description="null: there is no such command")
    ok: bool
    reason: str = Field(description="why it was not carried out; else what is so now")
    id: str | None = Field(description="that of the command, if it had one")
    ignored: int = Field(ge=0, description="commands not even answered since the start: too many, or retained")
