"""Everything that can be wrong from outside: one line with cause and remedy, the right exit code, no traceback."""

from __future__ import annotations

import ctypes.util
import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from realtime.demo import CLIP

MakeMedia = Callable[..., Path]
Try = Callable[..., Any]


@pytest.fixture
def sources(tmp_path: Path, make_media: MakeMedia, talking_clip: Path) -> dict[str, Path]:
    """Files that are no source, by what is wrong with them."""
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "notes.mp4").write_text("These are notes, not a film.\n" * 400)
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 200)
    whole = talking_clip.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    subtitles = tmp_path / "subtitles.mkv"
    text = tmp_path / "subtitles.srt"
    text.write_text("1\n00:00:00,000 --> 00:00:02,000\nHello.\n")
    shutil.copy(make_media("subtitles.mkv", "-f", "srt", "-i", str(text)), subtitles)
    return {
        "missing": tmp_path / "nowhere.mp4",
        "empty": tmp_path / "empty.mp4",
        "text": tmp_path / "notes.mp4",
        "noise": tmp_path / "noise.mp4",
        "truncated": tmp_path / "cut.mp4",
        "neither": subtitles,
        "directory": tmp_path,
    }


@pytest.mark.parametrize(
    ("what", "cause", "remedy"),
    [
        ("missing", "no such file", "check the path"),
        ("empty", "is empty (0 bytes)", "copy or record it again"),
        ("text", "is not a media file", "name a video or sound file"),
        ("noise", "is not a media file", "name a video or sound file"),
        ("truncated", "without its index, so it was cut off", "copy or record it again"),
        ("neither", "holds neither video nor sound", "name a file that does"),
        ("directory", "is a directory", "name a media file in it"),
    ],
)
@pytest.mark.parametrize("pace", ["max", "realtime"])
def test_a_file_that_is_no_source(
    refuse: Try, sources: dict[str, Path], pace: str, what: str, cause: str, remedy: str
) -> None:
    line = refuse(1, "run", "--source", sources[what], "--pace", pace, "--broker", "none")
    assert str(line).startswith(f"{sources[what]}: ")
    assert cause in line
    assert remedy in line


def goes_on(outcome: Any, file: Path) -> str:
    """A run that goes on, with one warning: what the warning says."""
    assert outcome.code == 0, outcome
    assert outcome.line.startswith("warning: ")
    assert len(file.read_text().splitlines()) >= 5
    return outcome.line


def test_a_film_that_was_cut_off_goes_on_with_what_there_is(
    live: Try, make_media: MakeMedia, untrained_checkpoint: Path, tmp_path: Path
) -> None:
    whole = make_media("whole.mkv", "-i", str(CLIP), "-t", "4", "-c", "copy").read_bytes()
    cut, file = tmp_path / "cut.mkv", tmp_path / "estimates.jsonl"
    cut.write_bytes(whole[: len(whole) // 2])
    line = goes_on(
        live(
            *("run", "--source", cut, "--pace", "max", "--broker", "none"),
            *("--checkpoint", untrained_checkpoint, "--estimates", file),
        ),
        file,
    )
    assert line.startswith(f"warning: {cut}: cut off ")
    assert line.endswith(" before its stated end")


@pytest.mark.parametrize(("left", "argument"), [("video", "-an"), ("sound", "-vn")])
@pytest.mark.parametrize("pace", ["max", "realtime"])
def test_a_file_without_video_or_without_sound_goes_on_with_the_rest(
    live: Try,
    make_media: MakeMedia,
    talking_clip: Path,
    untrained_checkpoint: Path,
    tmp_path: Path,
    left: str,
    argument: str,
    pace: str,
) -> None:
    source = make_media(f"only-{left}.mp4", "-i", str(talking_clip), "-t", "2", "-c", "copy", argument)
    file = tmp_path / "estimates.jsonl"
    line = goes_on(
        live(
            *("run", "--source", source, "--pace", pace, "--broker", "none"),
            *("--checkpoint", untrained_checkpoint, "--estimates", file),
        ),
        file,
    )
    missing = "sound" if left == "video" else "video"
    assert line == f"warning: {source} has no {missing}: estimates come from the rest alone"
    present = {m for e in file.read_text().splitlines() for m, p in json.loads(e)["modalities"].items() if p["present"]}
    assert ("vision" in present) == (left == "video")
    assert ("audio" in present) == (left == "sound")


def test_a_camera_that_does_not_exist(refuse: Try, untrained_checkpoint: Path) -> None:
    line = refuse(
        1, "run", "--source", "camera:97", "--microphone", "none", "--broker", "none",
        "--checkpoint", untrained_checkpoint,
    )  # fmt: skip
    assert line.startswith("camera:97: no such camera; ")
    assert "found: " in line or "connect one or name a file or stream" in line


def test_a_stream_nobody_serves(refuse: Try, untrained_checkpoint: Path) -> None:
    line = refuse(
        1, "run", "--source", "http://me:s3cret@127.0.0.1:9/live", "--microphone", "none", "--broker", "none",
        "--checkpoint", untrained_checkpoint,
    )  # fmt: skip
    assert line.startswith("http://127.0.0.1:9/live: 127.0.0.1:9 cannot be reached (Connection refused)")
    assert "s3cret" not in line


@pytest.fixture
def without_portaudio(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where the library PortAudio cannot be found."""
    find = ctypes.util.find_library
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None if "portaudio" in name else find(name))
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)


def test_a_microphone_asked_for_without_portaudio(
    refuse: Try, without_portaudio: None, untrained_checkpoint: Path
) -> None:
    line = refuse(
        1, "run", "--source", "none", "--microphone", "default", "--broker", "none",
        "--checkpoint", untrained_checkpoint,
    )  # fmt: skip
    assert line == "PortAudio is missing; sudo apt install libportaudio2"


def test_a_camera_without_portaudio_goes_on_without_sound(
    live: Try,
    without_portaudio: None,
    serve_mjpeg: Callable[..., Any],
    untrained_checkpoint: Path,
    tmp_path: Path,
) -> None:
    import numpy as np

    camera = serve_mjpeg([np.full((120, 160, 3), 90, np.uint8)])
    file = tmp_path / "estimates.jsonl"
    outcome = live(
        "run", "--source", camera.url, "--broker", "none", "--checkpoint", untrained_checkpoint,
        "--estimates", file, "--duration", "2",
    )  # fmt: skip
    line = goes_on(outcome, file)
    assert line.startswith("warning: PortAudio is missing; sudo apt install libportaudio2; continuing without sound")


def test_a_microphone_nobody_has(pulseaudio: Any, start_live: Callable[..., Any], untrained_checkpoint: Path) -> None:
    command = start_live(
        "run", "--source", "none", "--microphone", "Headset of Nobody", "--broker", "none",
        "--checkpoint", str(untrained_checkpoint),
        environment=pulseaudio.environment | {"HOME": str(Path.home())},
    )  # fmt: skip
    assert command.wait() == 1
    (line,) = command.err.splitlines()
    assert command.err.endswith("\n")
    assert line == "error: 'Headset of Nobody' does not name one microphone; there are: 'default'"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sourse: camera:0\n", ", line 1: unknown key 'sourse'; did you mean 'source'?"),
        ("source: none\n\n# a comment\nvolume: 11\n", ", line 4: unknown key 'volume'; known keys: source, "),
        ("source: none\nduration: ten\n", ", line 2: 'duration': input should be a valid number"),
        ("source: 3\n", ", line 1: 'source': input should be a valid string, found 3"),
        ("source: [a, b]\n", ", line 1: 'source': input should be a valid string, found ['a', 'b']"),
        ("source: none\npace: quick\n", ", line 2: 'pace': input should be 'realtime' or 'max', found 'quick'"),
        ("device: gpu\n", ", line 1: 'device': expected auto, cpu, cuda or cuda:N, found 'gpu'"),
        ("hop_s: 0\n", ", line 1: 'hop_s': input should be greater than or equal to 0.02, found 0"),
        ("stream: a/b\n", ", line 1: 'stream': expected 1 to 64 bytes without spaces and / + # $, found 'a/b'"),
        ("source: none\nbroker: me:s3cret@there\n", ", line 2: 'broker': does not begin with mqtt[s]:// or ws[s]://"),
        ("source: camera:0\n  hop_s: 1\n", ", line 2: not YAML ("),
        ("source: 'none\n", ": not YAML ("),
        ("- source\n", ", line 1: expected `key: value` lines, found list"),
        ("", ", line 1: expected `key: value` lines, found NoneType"),
        ("1: 2\n", ", line 1: '1': keys should be strings, found 1"),
        ("? [a, b]\n: c\n", "not YAML ("),
    ],
)
def test_a_configuration_with_a_mistake_names_the_line(refuse: Try, tmp_path: Path, text: str, expected: str) -> None:
    config = tmp_path / "live.yaml"
    config.write_text(text)
    line = refuse(2, "run", "--config", config)
    assert line.startswith(str(config))
    assert expected in line
    assert "s3cret" not in line


def test_every_mistake_of_a_configuration_has_its_line(live: Try, tmp_path: Path) -> None:
    config = tmp_path / "live.yaml"
    config.write_text("source: none\nduration: ten\nvolume: 11\n")
    outcome = live("run", "--config", config)
    assert outcome.code == 2
    lines = outcome.err.splitlines()
    assert [line.split(": ")[1] for line in lines] == [f"{config}, line 2", f"{config}, line 3"]
    assert all(line.startswith("error: ") for line in lines)


def test_a_configuration_that_cannot_be_read(refuse: Try, tmp_path: Path) -> None:
    assert "no such file" in refuse(2, "run", "--config", tmp_path / "nowhere.yaml").lower()
    assert "is a directory" in refuse(2, "run", "--config", tmp_path).lower()
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "not text in UTF-8" in refuse(2, "run", "--config", binary)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--device", "gpu"], "--device: expected auto, cpu, cuda or cuda:N, found 'gpu'"),
        (["--device", "cuda:"], "--device: expected auto, cpu, cuda or cuda:N, found 'cuda:'"),
        (["--broker", "broker.local"], "--broker: does not begin with mqtt[s]:// or ws[s]://; expected mqtt[s]://"),
        (["--broker", "mqtt://me:s3cret/@there"], "--broker: its port or host cannot be read; expected mqtt[s]://"),
        (["--stream", "a b"], "--stream: expected 1 to 64 bytes without spaces and / + # $, found 'a b'"),
        (["--stream", "x" * 65], "--stream: expected 1 to 64 bytes"),
        (["--duration", "-1"], "--duration: input should be greater than 0, found -1.0"),
        (["--duration", "nan"], "--duration: input should be a finite number, found nan"),
        (["--duration", "long"], "argument --duration: invalid float value: 'long'; see dhmd-live run --help"),
        (["--hop", "0"], "--hop: input should be greater than or equal to 0.02, found 0.0"),
        (["--pace", "quick"], "argument --pace: invalid choice: 'quick'"),
        (["--volume", "11"], "unrecognized arguments: --volume 11; see dhmd-live run --help"),
        (["--source", "none"], "nothing to perceive: --source none needs --microphone NAME or default"),
        (["--source", "camera:0", "--pace", "max"], "--pace max is for files; --source camera:0 is live"),
    ],
)
def test_a_wrong_request(refuse: Try, arguments: list[str], expected: str) -> None:
    line = refuse(2, "run", *arguments)
    assert line.startswith(expected)
    assert "s3cret" not in line


def test_a_command_that_does_not_exist(refuse: Try) -> None:
    assert "invalid choice: 'rum'" in refuse(2, "rum")
    assert "required: COMMAND" in refuse(2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_a_gpu_that_is_not_there(refuse: Try, device: str) -> None:
    line = refuse(1, "run", "--source", CLIP, "--broker", "none", "--device", device)
    assert line.startswith(f"--device {device}: this machine shows torch 0 CUDA device(s); use --device auto or cpu")


@pytest.mark.parametrize("where", ["nowhere/estimates.jsonl", "."])
def test_estimates_that_cannot_be_written(refuse: Try, tmp_path: Path, where: str) -> None:
    line = refuse(2, "run", "--source", CLIP, "--broker", "none", "--estimates", tmp_path / where)
    assert line.startswith(f"--estimates {tmp_path / where}: cannot be written (")
    assert line.endswith("name another file")


def test_weights_that_are_missing_without_network(
    refuse: Try, untrained_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DHMD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DHMD_OFFLINE", "1")
    line = refuse(1, "run", "--source", CLIP, "--broker", "none", "--checkpoint", untrained_checkpoint)
    assert line.startswith("face-landmarker: face_landmarker.task not in ")
    assert str(tmp_path / "cache") in line
    assert "`dhmd-live assets fetch`" in line


class Doctored:
    """A copy of a checkpoint to be spoilt."""

    def __init__(self, original: Path, folder: Path) -> None:
        self.folder = Path(shutil.copytree(original, folder))

    def change(self, spoil: Callable[[dict[str, Any]], None]) -> None:
        path = self.folder / "config.json"
        config = json.loads(path.read_text())
        spoil(config)
        path.write_text(json.dumps(config))

    def overwrite(self, file: str, content: bytes) -> None:
        (self.folder / file).write_bytes(content)


@pytest.fixture
def doctored(untrained_checkpoint: Path, tmp_path: Path) -> Doctored:
    return Doctored(untrained_checkpoint, tmp_path / "checkpoint")


def test_a_checkpoint_for_other_features(refuse: Try, doctored: Doctored) -> None:
    doctored.change(lambda config: config["features"]["audio"].update(version="0", rate_hz=25.0))
    line = refuse(1, "run", "--source", CLIP, "--broker", "none", "--checkpoint", doctored.folder)
    assert line.startswith("audio: the checkpoint was trained on other features (")
    assert "version: checkpoint '0', extractor '" in line
    assert "rate_hz: checkpoint 25.0, extractor 12.5" in line


def truncate(file: str) -> Callable[[Doctored], None]:
    def spoil(checkpoint: Doctored) -> None:
        whole = (checkpoint.folder / file).read_bytes()
        checkpoint.overwrite(file, whole[: len(whole) // 2])

    return spoil


def remove(file: str) -> Callable[[Doctored], None]:
    return lambda checkpoint: (checkpoint.folder / file).unlink()


def without(*keys: str) -> Callable[[Doctored], None]:
    def spoil(config: dict[str, Any]) -> None:
        for key in keys[:-1]:
            config = config[key]
        del config[keys[-1]]

    return lambda checkpoint: checkpoint.change(spoil)


def with_value(value: object, *keys: str) -> Callable[[Doctored], None]:
    def spoil(config: dict[str, Any]) -> None:
        for key in keys[:-1]:
            config = config[key]
        config[keys[-1]] = value

    return lambda checkpoint: checkpoint.change(spoil)


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (truncate("model.safetensors"), "model.safetensors is damaged: sha256 "),
        (truncate("vision.safetensors"), "vision.safetensors is damaged: sha256 "),
        (truncate("config.json"), "config.json is damaged: not JSON"),
        (remove("model.safetensors"), "model.safetensors is missing"),
        (remove("vision.safetensors"), "vision.safetensors is missing"),
        (remove("config.json"), "no checkpoint at "),
        (lambda c: c.overwrite("config.json", b"\xff\xfe\x00"), "config.json is damaged: not text in UTF-8"),
        (lambda c: c.overwrite("config.json", b"[]"), "config.json is damaged: expected an object, found list"),
        (lambda c: c.overwrite("config.json", b"[" * 100_000), "config.json is damaged: nested deeper than 32"),
        (with_value(99, "format"), "config.json: format 99, this version reads 1"),
        (without("name"), "config.json is incomplete: 'name' is missing"),
        (without("training"), "config.json is incomplete: 'training' is missing"),
        (without("features", "text"), "config.json is incomplete: 'text' is missing"),
        (without("features", "text", "width"), "config.json is incomplete: 'width' is missing"),
        (with_value(10**8, "features", "text", "width"), "100000000 is not a whole number from 1 to 65536"),
        (with_value("smell", "features", "text", "modality"), "damaged: 'smell' is not a valid Modality"),
        (without("sha256", "vision.safetensors"), "config.json is incomplete: 'vision.safetensors' is missing"),
        (with_value(3, "calibration"), "config.json is damaged: "),
        (with_value("big", "model", "d"), "config.json is damaged: 'big' is not a whole number from 1 to 65536"),
        (with_value(200_000, "model", "d"), "config.json is damaged: 200000 is not a whole number from 1 to 65536"),
        (with_value(60_000, "model", "d"), "model.safetensors does not fit config.json: it is too small"),
        (with_value(60_000, "model", "layers"), "model.safetensors does not fit config.json: it is too small"),
        (with_value(0, "calibration", "temperature", "text"), "config.json is damaged: 0 is not a number from 0.001"),
        (with_value(math.nan, "calibration", "temperature", "text"), "config.json is damaged: NaN, which is no number"),
        (with_value("hot", "calibration", "temperature", "text"), "config.json is damaged: 'hot' is not a number"),
        (with_value("x" * 10_000, "name"), "is not a text of at most 256 characters"),
        (with_value(24, "model", "d"), "model.safetensors does not fit config.json: "),
    ],
)  # fmt: skip
def test_a_damaged_checkpoint(refuse: Try, doctored: Doctored, spoil: Callable[[Doctored], None], cause: str) -> None:
    spoil(doctored)
    line = refuse(1, "run", "--source", CLIP, "--broker", "none", "--checkpoint", doctored.folder)
    assert str(doctored.folder) in line
    assert cause in line
    assert any(remedy in line for remedy in ("fetch it again", "again", "give a folder", "of this version"))


def test_a_checkpoint_that_does_not_exist(refuse: Try, tmp_path: Path) -> None:
    line = refuse(1, "run", "--source", CLIP, "--broker", "none", "--checkpoint", tmp_path / "nowhere")
    assert line.startswith(
        f"no checkpoint at {tmp_path / 'nowhere'}: give a folder that holds config.json, or one that"
    )


@pytest.mark.parametrize("stream", ["a/b", "#", ""])
def test_a_stream_that_cannot_be_watched(refuse: Try, stream: str) -> None:
    line = refuse(2, "watch", "--broker", "mqtt://127.0.0.1:9", "--stream", stream)
    assert line.startswith("--stream: expected 1 to 64 bytes")
