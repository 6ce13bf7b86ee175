"""Every parser of bytes from outside, on bytes that are nearly right: a value, or the error that it names; and soon."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch

from dhmd.checkpoint import PRETRAINED, load
from dhmd.contract import Rows, Word
from dhmd.errors import DHMDError
from dhmd.modality import Modality
from dhmd.untrusted import Untrusted, read_json, within
from dhmd.yaml_config import read_config
from realtime.capture.browser import JpegFrame
from realtime.capture.jpeg import baseline_size
from realtime.errors import CommandRefused
from realtime.messages.estimate import Dropped, Estimate
from realtime.mqtt.commands import read
from realtime.recognition.engine import Engine
from realtime.scale.edge_stream import EdgeStream
from realtime.scale.served import Estimator, ServedStreams
from realtime.scale.window_log import WindowLog
from realtime.scale.window_message import WindowInvalid, WindowMessage
from realtime.settings import RunSettings
from realtime.web.protocol import NotTaken, read_binary, read_text
from tests.fuzzing import chances, spoilt
from training.data import unpickle
from training.data.manifest import read_manifests
from training.errors import PickleRefused
from training.features.store import FeatureStore

SPECS = load("base").features


class Parser(NamedTuple):
    """Takes bytes and a folder to write them to. told: the errors by which it refuses."""

    sound: Callable[[], bytes]
    parse: Callable[[bytes, Path], Any]
    told: tuple[type[Exception], ...]


def window() -> bytes:
    message = WindowMessage(
        incarnation="life",
        seq=1,
        previous=None,
        features=SPECS,
        epoch_unix=1.7e9,
        end_s=5.0,
        sent_s=5.1,
        transit_s=0.01,
        timed=True,
        rows={m: Rows(np.array([4.0, 4.5]), np.ones((2, SPECS[m].width), np.float32)) for m in Modality},
        words=(Word("hello", 1.0, 1.5),),
        faces=1,
        dropped=Dropped(video=0, audio=0),
    )
    return message.encode()


@cache
def estimator() -> Estimator:
    return Estimator(load("base"), Engine(load("base"), torch.device("cpu")))


def answered(data: bytes, _: Path) -> None:
    """What a server takes, it answers with an estimate that an edge can read."""
    streams = ServedStreams("a", SPECS)
    streams.receive("dhmd/hall/window", data)
    for estimate in estimator().answer(streams.take(1)):
        Estimate.model_validate_json(estimate.model_dump_json())


def in_file(name: str, use: Callable[[Path], Any]) -> Callable[[bytes, Path], Any]:
    def parse(data: bytes, folder: Path) -> None:
        path = folder / name
        path.write_bytes(data)
        use(path)

    return parse


def edge(data: bytes, _: Path) -> None:
    """What is said to an edge about its windows."""
    stream = EdgeStream("hall", WindowLog(SPECS, lambda: Rows.empty(1)), 0.0, lambda: 0.0)
    stream.on_resync(data)
    stream.on_refused(data)
    text = data.decode(errors="replace")
    stream.on_answer(dict.fromkeys(("server", "session", "window", "held_ms"), text), 0.0)
    stream.on_presence(text, data, 0.0)


def checkpoint(data: bytes, folder: Path) -> None:
    base = PRETRAINED / "base"
    for file in base.glob("*.safetensors"):
        with suppress(FileExistsError):
            (folder / file.name).symlink_to(file)
    (folder / "config.json").write_bytes(data)
    load(folder)


def manifest(path: Path) -> None:
    with closing(FeatureStore(path.parent / "features")) as store:
        read_manifests([path], store.files)


def jpeg() -> bytes:
    return bytes(cv2.imencode(".jpg", np.zeros((48, 64, 3), np.uint8))[1])


def seen(data: bytes, _: Path) -> None:
    """A picture that is decoded has the size that was read before."""
    picture = JpegFrame(data, 0.0, 0.0, lambda _: None).decoded()
    assert picture is None or picture.image.shape[1::-1] == baseline_size(data)


def of(text: str) -> Callable[[], bytes]:
    return text.encode


PARSERS = {
    "json": Parser(of('{"a": [1, 2.5e3, null, true, "x"]}'), lambda data, _: read_json(data), (Untrusted,)),
    "yaml": Parser(
        of("source: camera:0\nbroker: none\nhop_s: 0.1\nstate: true\n"),
        in_file("live.yaml", lambda path: read_config(path, RunSettings)),
        (DHMDError,),
    ),
    "checkpoint": Parser((PRETRAINED / "base" / "config.json").read_bytes, checkpoint, (DHMDError,)),
    "window": Parser(window, lambda data, _: WindowMessage.decode(data), (WindowInvalid,)),
    "served": Parser(window, answered, ()),
    "edge": Parser(of('{"server": "a", "session": "b", "reason": "c"}'), edge, ()),
    "page": Parser(
        of('{"type": "source", "kind": "audio", "state": "on", "reason": "", "rate": 48000}'),
        lambda data, _: read_text(data.decode(errors="replace")),
        (NotTaken,),
    ),
    "sent": Parser(lambda: b"\1" + bytes(8) + jpeg(), lambda data, _: read_binary(data), (NotTaken,)),
    "picture": Parser(jpeg, seen, ()),
    "command": Parser(of('{"hop_s": 0.5, "id": "x"}'), lambda data, _: read("hop", data), (CommandRefused,)),
    "estimate": Parser(
        of('{"v": 1, "top": null}'), lambda data, _: Estimate.model_validate_json(within(data)), (ValueError,)
    ),
    "pickle": Parser(
        lambda: pickle.dumps({"text": [np.zeros((2, 3), np.float32), "x", b"y", 1.5]}),
        in_file("x.pkl", unpickle.load),
        (PickleRefused,),
    ),
    "table": Parser(
        of('id,text,emotion,words\na,hello,happy,"[[""hello"", 0, 1]]"\n'),
        in_file("clips.csv", manifest),
        (DHMDError,),
    ),
}


@pytest.mark.parametrize("name", PARSERS)
def test_whatever_comes_is_taken_or_refused(name: str, tmp_path: Path) -> None:
    parser = PARSERS[name]
    sound = parser.sound()
    with suppress(*parser.told):
        parser.parse(sound, tmp_path)
    for chance in chances():
        with suppress(*parser.told):
            parser.parse(spoilt(sound, chance), tmp_path)
