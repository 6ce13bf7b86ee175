"""Messages that pages may send, checked: those of docs/web.md, and how many of them are taken."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from dhmd.untrusted import shown
from realtime.languages import ENGLISH
from realtime.messages.commands import LONGEST_SMOOTHING_S

MALFORMED, REFUSED, SUPERSEDED, BUSY = 4400, 4403, 4409, 4429  # of the range that WebSocket leaves to applications

LARGEST_TEXT: Final = 4096
LARGEST_PICTURE: Final = 512 * 1024
LONGEST_SOUND_S: Final = 1.0
LARGEST_MESSAGE: Final = 4 * 2**20
"""What is larger is not even received: the connection is closed."""
PICTURES_HZ, TEXTS_HZ, SOUND_RATE = 30.0, 20.0, 1.5
SOUND_AHEAD_S: Final = 15.0
OLDEST_S: Final = 15.0

_PICTURE, _SOUND = 1, 2
_HEAD: Final = struct.Struct("<Bd")

Reason = Annotated[str, Field(max_length=200), AfterValidator(shown)]


class _Said(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Join(_Said):
    type: Literal["join"]
    session: str | None = Field(None, max_length=64)


class Pong(_Said):
    type: Literal["pong"]
    id: int
    t: float


class DeviceState(_Said):
    type: Literal["source"]
    kind: Literal["video", "audio"]
    state: Literal["on", "off", "paused"]
    reason: Reason = ""
    rate: int | None = Field(None, ge=8_000, le=192_000)


class Key(_Said):
    type: Literal["key"]
    key: Literal["m", "1", "2", "3", "4", "5", "6", "7"]


class Record(_Said):
    type: Literal["record"]
    on: bool
    video: bool = False
    audio: bool = False
    language: str = Field(ENGLISH, max_length=16)
    """Of the report, if it is one of LANGUAGES."""


class Choose(_Said):
    """Read the person at this place, fractions of the picture."""

    type: Literal["choose"]
    x: float = Field(ge=0, le=1)
    y: float = Field(ge=0, le=1)


class Steady(_Said):
    """See Steadiness."""

    type: Literal["steady"]
    smoothing: float = Field(ge=0, le=LONGEST_SMOOTHING_S)
    margin: float = Field(ge=0, le=1)


class Play(_Said):
    """What is not said stays as it is. at: seconds of the recording. session: number in the list, from 0."""

    type: Literal["play"]
    on: bool | None = None
    at: float | None = Field(None, ge=0)
    speed: float | None = Field(None, ge=0.1, le=16)
    loop: bool | None = None
    session: int | None = Field(None, ge=0)


class Leave(_Said):
    type: Literal["leave"]


PageText = Join | Pong | DeviceState | Key | Record | Choose | Steady | Play | Leave
_SAID: TypeAdapter[PageText] = TypeAdapter(Annotated[PageText, Field(discriminator="type")])


@dataclass(frozen=True, slots=True)
class SentPicture:
    what: ClassVar = "video"
    captured_s: float
    """Page time."""
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class SentSound:
    what: ClassVar = "audio"
    captured_s: float
    """Page time of the first sample."""
    samples: NDArray[np.int16]


class NotTaken(Exception):
    """Raised for what is no message. what: its kind as far as it is known."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(reason)
        self.what = what
        self.reason = reason


def read_text(text: str) -> PageText:
    """Read a message in JSON. Raises NotTaken."""
    if len(text) > LARGEST_TEXT:
        raise NotTaken("text", f"larger than {LARGEST_TEXT} characters")
    try:
        return _SAID.validate_json(text)
    except ValidationError:
        raise NotTaken("text", "not a message of this protocol") from None


def read_binary(data: bytes) -> SentPicture | SentSound:
    """Read a picture or sound. Raises NotTaken."""
    if len(data) <= _HEAD.size:
        raise NotTaken("video", "too short for a picture or sound")
    kind, captured_s = _HEAD.unpack_from(data)
    body = data[_HEAD.size :]
    what = {_PICTURE: "video", _SOUND: "audio"}.get(kind)
    if what is None:
        raise NotTaken("video", "neither a picture nor sound")
    if not math.isfinite(captured_s):
        raise NotTaken(what, "without a time")
    if kind == _PICTURE:
        return SentPicture(captured_s, body)
    if len(body) % 2:
        raise NotTaken(what, "not whole samples")
    return SentSound(captured_s, np.frombuffer(body, "<i2"))
