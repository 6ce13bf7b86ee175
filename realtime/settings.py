"""Settings of a run, an edge, a server, a page. Where their values come from is in `realtime.layers`.

`python -m realtime.settings` writes docs/config.schema.json, by which editors complete and check a configuration file.
"""

from __future__ import annotations

import json
import re
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from dhmd.features.landmarks import MOST_PEOPLE
from dhmd.features.speech import AUTO, DEFAULT_SPEECH, SPEECH_MODELS
from dhmd.features.timeline import PICTURES_HZ
from realtime.capture.camera import is_camera
from realtime.capture.network import Trust, masked
from realtime.errors import SettingsInvalid
from realtime.messages.commands import LONGEST_SMOOTHING_S
from realtime.messages.topics import check_stream_name
from realtime.mqtt.broker import BrokerAccess, BrokerAddress
from realtime.mqtt.discovery import PREFIX
from realtime.outlets.osc import host_and_port
from realtime.perception.listening import Listening
from realtime.perception.rates import FULL, Rates, Wish
from realtime.recognition.steadiness import BY_DEFAULT, Steadiness


class StreamSettings(BaseModel):
    """Settings of one stream. Each key is also a flag of the commands that it concerns, and a variable of the
    environment: DHMD_PEOPLE."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    source: str = Field(
        "camera:0", description="media file, camera:N, /dev/videoN, rtsp[s]:// or http[s]:// stream, none, browser"
    )
    source_ca: str | None = Field(None, description="PEM file of the CA of an https:// or rtsps:// camera")
    source_insecure: bool = Field(False, description="take any certificate of an https:// or rtsps:// camera")
    microphone: str | None = Field(
        None,
        description="a device's name, default, or none; unset: default with a camera, none with a file or streams",
    )
    people: int | Literal["all"] = Field(
        1, description=f"most people that are followed, each with an estimate of their own; all: {MOST_PEOPLE}"
    )
    take_over: bool = Field(False, description="end another run that publishes the stream, rather than leave it to it")
    state: bool = Field(False, description="also publish single values, retained, under dhmd/STREAM/state/")
    discovery: bool = Field(False, description="announce the stream to Home Assistant; publishes the single values too")
    words: Literal["shared", "private", "off"] = Field(
        "shared", description="private: read by the model, and told to nobody; off: no speech is recognised"
    )
    estimates: str | None = Field(None, description="file to write the estimates to, one JSON object a line")
    lsl: bool = Field(False, description="send numbers and markers by the lab streaming layer, on the local network")
    osc: str | None = Field(None, description="send by Open Sound Control to HOST:PORT, over UDP")
    record: str | None = Field(None, description="session file to write, .mcap: features, words and estimates")
    record_video: bool = Field(False, description="pictures too")
    record_audio: bool = Field(False, description="sound too")
    participant: str | None = Field(None, max_length=64, description="name or number of who is recorded, for reports")
    notes: str | None = Field(None, max_length=500, description="what else the reports of a recording shall tell")
    allow_control: bool = Field(False, description="carry out commands sent to dhmd/STREAM/set/...")
    record_dir: str | None = Field(None, description="folder of the recordings that a command starts")
    duration: float | None = Field(None, gt=0, strict=False, description="stop after so many seconds")
    hop_s: float | None = Field(
        None,
        ge=0.02,
        le=5.0,
        strict=False,
        description="seconds between two estimates; unset: 0.1, or as the machine can",
    )
    pictures_hz: float | None = Field(
        None,
        ge=3.0,
        le=PICTURES_HZ,
        strict=False,
        description="pictures looked at in a second; unset: 15, or as the machine can",
    )
    smoothing_s: float = Field(
        BY_DEFAULT.smoothing_s,
        ge=0,
        le=LONGEST_SMOOTHING_S,
        strict=False,
        description="average what is said over time, so that an old value counts 1/e after so many seconds",
    )
    margin: float = Field(
        BY_DEFAULT.margin,
        ge=0,
        le=1,
        strict=False,
        description="probability by which another emotion has to lead for a second before it is the top one; 0: any",
    )

    @field_validator("words", mode="before")
    @classmethod
    def _as_yaml_reads(cls, words: object) -> object:
        return "off" if words is False else words  # what an unquoted `off` is there

    @field_validator("people", mode="before")
    @classmethod
    def _a_number(cls, people: object) -> object:
        most_people(people)
        return people

    @field_validator("osc")
    @classmethod
    def _a_host(cls, osc: str | None) -> str | None:
        if osc is not None:
            try:
                host_and_port(osc)
            except SettingsInvalid as error:
                raise ValueError(str(error).removeprefix("--osc: ")) from None
        return osc


class RunSettings(StreamSettings):
    """Settings of a program: those of its stream, or of several `streams`, and those that all of them share."""

    broker: str = Field("embedded", description="mqtt[s]:// or ws[s]://[user@]host[:port], embedded, none")
    broker_ca: str | None = Field(None, description="PEM file of the CA that signed the broker's certificate")
    broker_cert: str | None = Field(None, description="PEM file of the client certificate")
    broker_key: str | None = Field(None, description="PEM file of its key, if it is not in the same file")
    broker_password_file: str | None = Field(None, description="file with the password; or DHMD_BROKER_PASSWORD")
    stream: str = Field("default", description="name of the stream in the topics: dhmd/STREAM/emotion")
    discovery_prefix: str = Field(PREFIX, description="below which Home Assistant looks for devices")
    checkpoint: str = Field("base", description="name of a checkpoint that ships here, or a folder")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    pace: Literal["realtime", "max"] = Field("realtime", description="max: a file as fast as the machine allows")
    speech: str = Field(
        DEFAULT_SPEECH,
        description=f"what recognises words: {', '.join(SPEECH_MODELS)}, a folder with Whisper for CTranslate2, or "
        "owner/name on its hub",
    )
    language: str = Field(AUTO, description="what is spoken, as en or de; auto: found in what is said")
    untested_words: bool = Field(
        False, description="read the words of languages, too, in which the checkpoint was not tested"
    )
    metrics_port: int | None = Field(None, description="answer Prometheus on this port; 0: a free one")
    metrics_host: str | None = Field(None, description="address to answer it on; unset: 127.0.0.1")
    host: str = Field("127.0.0.1", description="of the page: address to serve on")
    port: int = Field(8765, ge=0, le=65535, description="of the page; 0: a free one")
    tls_cert: str | None = Field(None, description="of the page: certificate to serve it over TLS with, PEM")
    tls_key: str | None = Field(None, description="of the page: the certificate's private key, PEM")
    token_file: str | None = Field(
        None, description="of the page: file that keeps its token from start to start; made where there is none"
    )
    proxy: str | None = Field(
        None, description="of the page: address of a proxy that lets in whom it knows; nobody else is answered"
    )
    max_streams: int | None = Field(None, gt=0, description="of the page: most visitors at a time; unset: measured")
    group: str = Field("dhmd-serve", description="of servers: who shares work")
    streams: dict[str, StreamSettings] = Field(
        {}, description="of run: several streams in one process, by their names, each with settings of its own"
    )

    @field_validator("group")
    @classmethod
    def _a_group(cls, group: str) -> str:
        try:
            return check_stream_name(group)
        except SettingsInvalid as error:
            raise ValueError(str(error).removeprefix("--stream: ")) from None

    @field_validator("stream")
    @classmethod
    def _one_level(cls, stream: str) -> str:
        if stream == "serve":
            raise ValueError("serve is the topic of the servers; choose another name")
        try:
            return check_stream_name(stream)
        except SettingsInvalid as error:
            raise ValueError(str(error).removeprefix("--stream: ")) from None

    @field_validator("broker")
    @classmethod
    def _an_address(cls, broker: str) -> str:
        if broker not in {"embedded", "none"}:
            try:
                BrokerAddress.parse(broker)
            except SettingsInvalid as error:
                raise ValueError(f"{str(error).removeprefix('--broker: ')}; or embedded, or none") from None
        return broker

    @field_validator("discovery_prefix")
    @classmethod
    def _levels(cls, prefix: str) -> str:
        if not re.fullmatch(r"[^\s/+#$]+(/[^\s/+#$]+)*", prefix):
            raise ValueError(f"expected levels of a topic without + # $ and spaces, found {prefix!r}")
        return prefix

    @field_validator("language")
    @classmethod
    def _a_language(cls, language: str) -> str:
        if not re.fullmatch(r"auto|[a-z]{2,3}", language):
            raise ValueError(f"expected auto, or a code as en or de, found {language!r}")
        return language

    @field_validator("device")
    @classmethod
    def _a_device(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|cuda(:\d{1,3})?", device):
            raise ValueError(f"expected auto, cpu, cuda or cuda:N, found {device!r}")
        return device

    @field_validator("streams")
    @classmethod
    def _their_names(cls, streams: dict[str, StreamSettings]) -> dict[str, StreamSettings]:
        for name in streams:
            cls._one_level(name)
        return streams

    def shown(self) -> dict[str, object]:
        """All values, without the passwords in addresses."""
        values = self.model_dump()
        values["source"] = masked(self.source)
        values["streams"] = {
            name: {**one.model_dump(exclude_unset=True), "source": masked(one.source)}
            for name, one in self.streams.items()
        }
        if self.broker not in {"embedded", "none"}:
            values["broker"] = str(BrokerAddress.parse(self.broker))
        return values

    @property
    def wish(self) -> Wish:
        """Rates that were asked for."""
        return Wish(self.pictures_hz, self.hop_s)

    @property
    def rates(self) -> Rates:
        """Rates where nothing is measured."""
        return self.wish.of(FULL)

    @property
    def most_people(self) -> int:
        """How many people are followed at most."""
        return most_people(self.people)

    @property
    def access(self) -> BrokerAccess:
        return BrokerAccess(self.broker_ca, self.broker_cert, self.broker_key, self.broker_password_file)

    @property
    def trust(self) -> Trust:
        return Trust(self.source_ca, self.source_insecure)

    @property
    def listening(self) -> Listening | None:
        """What words are recognised with; None: no speech is recognised."""
        return None if self.words == "off" else Listening(self.speech, self.language, self.untested_words)

    @property
    def steadiness(self) -> Steadiness:
        return Steadiness(self.smoothing_s, self.margin)

    @property
    def is_live(self) -> bool:
        """Whether the source is a camera, a stream or nothing, rather than a file."""
        return self.source == "none" or is_camera(self.source)


def most_people(people: object) -> int:
    """Return how many people a value of the setting lets follow. Raises ValueError."""
    if people == "all":
        return MOST_PEOPLE
    if type(people) is not int or not 1 <= people <= MOST_PEOPLE:
        raise ValueError(f"expected a number of people from 1 to {MOST_PEOPLE}, or all, found {people!r}")
    return people


HEARD_BY: Final = ("speech", "language", "untested_words")
"""Settings by which words are recognised and read."""
BROWSER = "browser"
"""The source that visitors bring along: see `realtime.programs.visitors`."""


if __name__ == "__main__":
    print(json.dumps(RunSettings.model_json_schema(), indent=2))
