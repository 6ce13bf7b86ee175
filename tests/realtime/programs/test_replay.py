"""Recorded runs replayed: the same estimates, at any pace, to a broker, beside another model; and what cannot be."""

from __future__ import annotations

import functools
import itertools
import json
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from mcap.records import Message, Metadata

from dhmd.checkpoint import Checkpoint
from dhmd.features.face import FaceExtractor
from dhmd.features.speech import SpeechModel
from dhmd.features.text import TextExtractor
from dhmd.modality import Modality
from dhmd.session import Session, schema
from dhmd.session.reader import whole_records
from realtime.capture.samples import AudioBlock, VideoFrame
from realtime.demo import CLIP
from realtime.errors import SettingsInvalid
from realtime.perception import extractors
from realtime.perception.listening import Listening
from realtime.perception.transcript import StreamingTranscript, TranscriptUpdate
from realtime.programs import replay as player
from realtime.programs import run
from realtime.recognition.engine import Engine
from realtime.session import recorder
from realtime.session import rewound as replay
from realtime.session.media import samples
from realtime.session.writer import SessionWriter

Live = Callable[..., Any]
Refuse = Callable[..., str]
StartLive = Callable[..., Any]

speech_model = functools.cache(SpeechModel)
text_extractor = functools.cache(TextExtractor)
engines: dict[str, Engine] = {}


def an_engine(checkpoint: Checkpoint, device: Any, *, activations: bool = False) -> Engine:
    assert not activations, "no page looks"
    if checkpoint.digest not in engines:
        engines[checkpoint.digest] = Engine(checkpoint, device)
    return engines[checkpoint.digest]


@pytest.fixture(scope="module", autouse=True)
def _models_loaded_once() -> Iterator[None]:
    """Those without a state of their own are the same in all runs here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractors, "SpeechModel", speech_model)
        for module in (extractors, replay):
            patch.setattr(module, "TextExtractor", text_extractor)
        for module in (run, player):
            patch.setattr(module, "Engine", an_engine)
        yield


def verified(live: Live, path: Path) -> None:
    outcome = live("replay", path, "--verify")
    assert outcome.code == 0, outcome
    assert outcome.err == ""
    assert "verified: all within 1e-05" in outcome.out


def messages_of(path: Path, topic: str) -> list[Any]:
    return [record.message for record in Session.open(path).records({topic})]


def altered(path: Path, out: Path, change: Callable[[str, Any], object], **head: str) -> Path:
    """The session with each message changed by `change(topic, message)`, and its head by `head`."""
    session = Session.open(path)
    with out.open("wb") as file:
        writer = SessionWriter(file, session.epoch_unix, {**session.metadata, **head})
        for record in session.records():
            change(record.topic, record.message)
            writer.add(record.topic, record.arrived_s, record.captured_s, lambda _, m=record.message: m)  # type: ignore[misc]
        writer.end_chunk()
        writer.finish()
    return out


def nothing(topic: str, message: Any) -> None:
    """Changes nothing."""


@pytest.fixture(scope="module")
def with_media(
    talking_clip: Path, untrained_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Path]]:
    """Two and a half seconds with pictures and sound, by an untrained model; and what else the run left."""
    from rich.console import Console

    from realtime.settings import RunSettings

    folder = tmp_path_factory.mktemp("media")
    path = folder / "media.mcap"
    run.run(
        RunSettings(
            source=str(talking_clip),
            pace="max",
            broker="none",
            checkpoint=str(untrained_checkpoint),
            duration=2.5,
            record=str(path),
            record_video=True,
            record_audio=True,
        ),
        Console(quiet=True),
    )
    return path, [other for other in folder.iterdir() if other != path]


# Recorded and replayed.


def test_a_file_at_max(recorded: Path, live: Live) -> None:
    verified(live, recorded)
    assert len(messages_of(recorded, schema.ESTIMATE)) == 60
    assert messages_of(recorded, schema.WORDS)


def test_a_file_at_its_own_pace_while_the_wall_clock_is_set_back(
    live: Live, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "session.mcap"
    wall, step_s = time.time, [0.0]

    def set_back() -> float:
        step_s[0] -= 1000.0
        return wall() + step_s[0]

    monkeypatch.setattr(time, "time", set_back)
    assert live("run", "--source", CLIP, "--broker", "none", "--duration", "2.5", "--record", path).code == 0
    monkeypatch.setattr(time, "time", wall)
    verified(live, path)
    session = Session.open(path)
    assert session.timed
    records = list(session.records())
    assert all(record.arrived_s >= -0.001 for record in records)
    ends_s = [r.message.end_s for r in records if r.topic == schema.ESTIMATE]
    assert ends_s == sorted(ends_s)
    assert ends_s[-1] < 3
    assert {"video", "audio", "face", "voice", "transcript", "recording"} <= {
        r.message.worker for r in records if r.topic == schema.STATUS
    }


CLIPS = [
    "crying_640x360.mp4", "face_then_noface.mov", "grid_bbaf2n.mpg", "grid_brbk7n.mpg", "grid_lbax4n.mpg",
    "grid_lrwp9a.mpg", "grid_sbia1a.mpg", "grid_swwp2s.mpg", "mead_disgusted.mp4", "mead_happy.mp4", "mead_sad.mp4",
    "mead_sad_1080p_speech.mp4", "single_face_smile.mp4",
]  # fmt: skip


@pytest.mark.parametrize("name", CLIPS)
def test_clips_of_people(shared: Path, live: Live, untrained_checkpoint: Path, tmp_path: Path, name: str) -> None:
    """Of every size, rate and container, with and without sound. Those with words are heard whole."""
    path = tmp_path / "session.mcap"
    duration = "3" if name == "grid_swwp2s.mpg" else "1"
    ran = live(
        "run", "--source", shared / "clips" / name, "--pace", "max", "--broker", "none", "--duration", duration,
        "--checkpoint", untrained_checkpoint, "--record", path,
    )  # fmt: skip
    assert ran.code == 0
    verified(live, path)
    if duration == "3":
        assert messages_of(path, schema.WORDS)


def test_a_microphone(
    pulseaudio: Any, make_media: Callable[..., Path], start_live: StartLive, live: Live, tmp_path: Path
) -> None:
    path, file = tmp_path / "session.mcap", tmp_path / "estimates.jsonl"
    speech = make_media("speech.wav", "-i", str(CLIP), "-t", "4", "-vn", "-ac", "1", "-ar", "48000")
    command = start_live(
        "run", "--source", "none", "--microphone", "default", "--broker", "none", "--estimates", str(file),
        "--record", str(path),
        environment=pulseaudio.environment | {"HOME": str(Path.home())},
    )  # fmt: skip
    command.wait_for(lambda: file.exists() and file.stat().st_size > 0)
    playing = pulseaudio.play(speech)
    command.wait_for(lambda: "my day" in file.read_text())
    playing.wait()
    command.interrupt()
    assert command.wait() == 0
    verified(live, path)
    session = Session.open(path)
    assert session.complete
    assert not list(session.records({schema.FEATURES[Modality.VISION], schema.FACE}))
    assert any(m.modalities.text.present and m.modalities.audio.present for m in messages_of(path, schema.ESTIMATE))


def test_dropped_frames_and_late_words(
    live: Live, untrained_checkpoint: Path, talking_clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "session.mcap"
    push, step = FaceExtractor.push, StreamingTranscript.step

    def slow_push(self: FaceExtractor, *arguments: Any) -> Any:
        time.sleep(0.3)
        return push(self, *arguments)

    def late_step(self: StreamingTranscript, *arguments: Any) -> TranscriptUpdate | None:
        update = step(self, *arguments)
        if update is not None:
            time.sleep(0.6)
        return update

    monkeypatch.setattr(FaceExtractor, "push", slow_push)
    monkeypatch.setattr(StreamingTranscript, "step", late_step)
    ran = live(
        "run", "--source", talking_clip, "--broker", "none", "--record", path, "--checkpoint", untrained_checkpoint
    )
    assert ran.code == 0
    monkeypatch.undo()
    verified(live, path)
    assert messages_of(path, schema.ESTIMATE)[-1].dropped_video > 20
    late_s = [
        r.arrived_s - r.message.partial[-1].end_s
        for r in Session.open(path).records({schema.WORDS})
        if r.message.partial
    ]
    assert max(late_s) > 0.6


def test_what_the_recorder_had_to_leave_out_is_said(
    live: Live, untrained_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "session.mcap"
    command = ("run", "--source", CLIP, "--broker", "none", "--checkpoint", untrained_checkpoint, "--record", path)
    asked = itertools.count()
    monkeypatch.setattr(recorder.Recorder, "_full", lambda *_: next(asked) % 5 == 0)
    ran = live(*command, "--duration", "2.5")
    assert ran.code == 0
    assert "estimates" in ran.out
    monkeypatch.undo()
    lost: Counter[str] = Counter()
    for message in messages_of(path, schema.LOST):
        lost[message.topic] += message.count
    assert lost
    replayed = live("replay", path)
    assert replayed.code == 0
    for topic, count in lost.items():
        line = f"the recorder had to leave out {count} messages of {topic}: what they told is missing here"
        assert line in replayed.out.splitlines()


def test_at_max_a_short_queue_loses_nothing(
    live: Live, untrained_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "session.mcap"
    monkeypatch.setattr(recorder, "QUEUE_MESSAGES", 3)
    ran = live(
        "run", "--source", CLIP, "--pace", "max", "--broker", "none", "--duration", "1.5", "--record", path,
        "--checkpoint", untrained_checkpoint,
    )  # fmt: skip
    assert ran.code == 0
    assert not messages_of(path, schema.LOST)
    assert len(messages_of(path, schema.ESTIMATE)) == 15
    verified(live, path)


def test_a_disk_that_fills_stops_the_recording_and_not_the_run(
    mosquitto: Any,
    subscribe: Callable[..., Any],
    live: Live,
    untrained_checkpoint: Path,
    talking_clip: Path,
    small_disk: Path,
) -> None:
    listener = subscribe(mosquitto.port)
    path = small_disk / "session.mcap"
    ran = live(
        "run", "--source", talking_clip, "--broker", mosquitto.url, "--stream", "hall", "--record", path,
        "--record-video", "--checkpoint", untrained_checkpoint,
    )  # fmt: skip
    line = f"{path}: No space left on device"
    assert ran.code == 0
    assert ran.err == f"warning: recording stopped, {line}; what was written is kept, recognition continues\n"
    assert 0 < len(messages_of(path, schema.ESTIMATE)) < len(listener.estimates("hall"))
    verified_cut(live, path)
    states = [json.loads(payload) for payload in listener.payloads("dhmd/hall/status/recording")]
    assert (states[-1]["state"], states[-1]["reason"]) == ("failed", line)
    assert listener.estimates("hall")[-1]["seq"] > 30


def verified_cut(live: Live, path: Path) -> None:
    outcome = live("replay", path, "--verify")
    assert outcome.code == 0, outcome
    assert outcome.out.startswith(f"{path} was cut; what is whole of it is replayed\n")


@pytest.mark.parametrize("what", ["file", "folder", "missing folder"])
def test_a_wrong_path_is_told_before_models_load(
    refuse: Refuse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    path = tmp_path / "session.mcap"
    if what == "file":
        path.write_bytes(b"mine")
    elif what == "folder":
        path.mkdir()
    else:
        path = tmp_path / "none" / "session.mcap"
    published = tmp_path / "estimates.jsonl"
    published.write_text("mine")
    monkeypatch.setattr(run, "load", lambda _: pytest.fail("loads"))
    line = refuse(2, "run", "--source", CLIP, "--broker", "none", "--record", path, "--estimates", published)
    assert line.startswith(f"--record {path}: ")
    assert line.endswith(("name another file", "move it away"))
    assert published.read_text() == "mine"
    if what == "file":
        assert path.read_bytes() == b"mine"


def test_a_run_that_fails_before_it_perceives_leaves_no_file(refuse: Refuse, tmp_path: Path) -> None:
    """So that it can be tried again under the same name."""
    path = tmp_path / "session.mcap"
    command = ("run", "--broker", "none", "--record", path)
    assert "no checkpoint" in refuse(1, *command, "--source", CLIP, "--checkpoint", tmp_path / "none")
    assert not path.exists()
    refuse(1, *command, "--source", "camera:97", "--microphone", "none")
    assert not path.exists()
    refuse(1, *command, "--source", "none", "--microphone", "Headset of Nobody")
    assert not path.exists()


def test_nothing_is_recorded_unless_asked_for(
    live: Live, untrained_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, with_media: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run, "Recorder", lambda *_: pytest.fail("records"))
    ran = live(
        "run", "--source", CLIP, "--pace", "max", "--broker", "none", "--duration", "0.5",
        "--checkpoint", untrained_checkpoint,
    )  # fmt: skip
    assert ran.code == 0
    assert not list(tmp_path.iterdir())
    assert not with_media[1]


def test_no_password_is_in_the_file(
    start_mosquitto: Callable[..., Any],
    serve_mjpeg: Callable[..., Any],
    subscribe: Callable[..., Any],
    live: Live,
    untrained_checkpoint: Path,
    tmp_path: Path,
) -> None:
    """Not even in what the camera's worker says of its troubles."""
    broker = start_mosquitto("t0pSecret")
    listener = subscribe(broker.port, broker.USER, broker.password)
    camera = serve_mjpeg([np.zeros((120, 160, 3), np.uint8)])
    path = tmp_path / "session.mcap"

    def trouble() -> None:
        try:
            told = functools.partial(listener.payloads, "dhmd/default/status/video")
            listener.wait_for(lambda: any(b"running" in payload for payload in told()))
            camera.vanish()
            listener.wait_for(lambda: any(b"restarting" in payload for payload in told()))
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    troubling = threading.Thread(target=trouble)
    troubling.start()
    ran = live(
        "run", "--source", f"http://me:s3cret@127.0.0.1:{camera.port}/locked?token=hushhush", "--microphone", "none",
        "--broker", broker.url, "--record", path, "--checkpoint", untrained_checkpoint,
    )  # fmt: skip
    troubling.join()
    assert ran.code == 0
    with path.open("rb") as file:
        inside = list(whole_records(file))
    told = [record.data if isinstance(record, Message) else repr(record).encode() for record in inside]
    everything = b"".join([*told, path.read_bytes(), ran.out.encode(), ran.err.encode()])
    assert everything.count(b"http://127.0.0.1") >= 2
    assert any(isinstance(record, Metadata) for record in inside)
    assert {m.worker for m in messages_of(path, schema.STATUS) if m.state == "restarting"} == {"video"}
    for secret in (b"s3cret", b"t0pSecret", b"hushhush"):
        assert secret not in everything


def test_pictures_and_sound_come_back(with_media: Any, talking_clip: Path) -> None:
    import av

    found = list(samples(Session.open(with_media[0])))
    frames = [sample for sample in found if isinstance(sample, VideoFrame)]
    blocks = [sample for sample in found if isinstance(sample, AudioBlock)]
    with av.open(str(talking_clip)) as container:
        filmed = {round(float(f.time), 3): f.to_ndarray(format="bgr24") for f in container.decode(video=0)}
    assert 30 <= len(frames) <= 39
    for frame in frames:
        near = min(filmed, key=lambda t: abs(t - frame.captured_s))
        noise = np.mean((filmed[near].astype(float) - frame.image) ** 2)
        assert 10 * np.log10(255**2 / noise) > 30
    assert sum(len(block.samples) for block in blocks) == pytest.approx(2.5 * 16_000, abs=3200)
    ends_s = [block.end_s for block in blocks[:-1]]
    assert [block.captured_s for block in blocks[1:]] == pytest.approx(ends_s, abs=1e-4)


# What a replay can do.


@pytest.mark.parametrize(("words", "pace"), [(("--pace", "4"), 4.0), (("--pace", "realtime"), 1.0)])
def test_a_pace_is_kept(
    recorded: Path, live: Live, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], pace: float
) -> None:
    due_s: list[float] = []

    async def until(at_s: float, _: Any) -> None:
        due_s.append(at_s)

    monkeypatch.setattr(player, "_until", until)
    assert live("replay", recorded, *words).code == 0
    gaps = [(later - one) * pace for one, later in itertools.pairwise(due_s)]
    assert gaps == pytest.approx([0.1] * 59)


def test_as_fast_as_possible_nothing_is_waited_for(recorded: Path, live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(player, "_until", lambda *_: pytest.fail("waits"))
    outcome = live("replay", recorded)
    assert outcome.code == 0
    assert "60 estimates of 5.9 s, " in outcome.out


def close(one: Any, other: Any) -> bool:
    """The same but for the last digit of numbers."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return one == pytest.approx(other, abs=2e-4) if isinstance(one, float) else one == other


def test_published_again_it_is_what_was_published(
    recorded: Path, live: Live, mosquitto: Any, subscribe: Callable[..., Any], tmp_path: Path
) -> None:
    listener = subscribe(mosquitto.port)
    again = tmp_path / "again.jsonl"
    outcome = live("replay", recorded, "--pace", "max", "--broker", mosquitto.url, "--estimates", again)
    assert outcome.code == 0
    published = [json.loads(line) for line in recorded.with_name("published.jsonl").read_text().splitlines()]
    listener.wait_for(lambda: len(listener.payloads("dhmd/hall/emotion")) == len(published))
    received = listener.estimates("hall")
    assert [json.loads(line) for line in again.read_text().splitlines()] == received
    for one, other in zip(published, received, strict=True):
        assert close(one, other), (one, other)
    listener.wait_for(lambda: listener.statuses("hall")[-1:] == ["stopped"])


def changes(labels: list[tuple[str | None, str | None]]) -> int:
    """Number of changes of the published label."""
    return sum(one != other for (one, _), (other, _) in itertools.pairwise(labels))


def test_the_label_is_the_recorded_one_unless_another_steadiness_is_asked_for(
    recorded: Path, live: Live, tmp_path: Path
) -> None:
    def call_it_fear(topic: str, message: Any) -> None:
        if topic == schema.ESTIMATE and message.HasField("emotions"):
            message.top = "fear"

    path = altered(recorded, tmp_path / "fear.mcap", call_it_fear)

    def labels(*words: str, of: Path = path) -> list[tuple[str | None, str | None]]:
        """Each published label, and the likeliest emotion."""
        out = tmp_path / "again.jsonl"
        assert live("replay", of, "--estimates", out, *words).code == 0
        told = [json.loads(line) for line in out.read_text().splitlines()]
        return [(e["top"], e["emotions"] and max(e["emotions"], key=e["emotions"].get)) for e in told]

    assert {top for top, likeliest in labels() if likeliest} == {"fear"}
    assert all(top == likeliest for top, likeliest in labels("--margin", "0"))
    assert labels("--margin", "0.2") == labels(of=recorded)
    likeliest, held = labels("--margin", "0"), labels("--margin", "1")
    assert held != likeliest, "what the likeliest emotion becomes at once takes a lead over time"
    assert changes(held) <= changes(likeliest)
    exported = tmp_path / "fear.jsonl"
    assert live("export", path, "--to", "jsonl", "--out", exported).code == 0
    assert {json.loads(line)["top"] for line in exported.read_text().splitlines()} <= {"fear", None}


def test_a_label_that_there_is_not_is_told_as_damage(recorded: Path, refuse: Refuse, tmp_path: Path) -> None:
    def call_it_joy(topic: str, message: Any) -> None:
        if topic == schema.ESTIMATE and message.HasField("emotions"):
            message.top = "joy"

    path = altered(recorded, tmp_path / "joy.mcap", call_it_joy)
    told = tmp_path / "told.jsonl"
    for words in (("replay", path, "--estimates", told), ("export", path, "--to", "csv")):
        line = refuse(1, *words)
        assert line.startswith(f"{path}: damaged, the emotion of estimate ")
        assert line.endswith(" reads 'joy'")


def test_as_another_stream_at_its_pace(
    recorded: Path, live: Live, mosquitto: Any, subscribe: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a broker the pace is that of the recording, unless told otherwise."""
    listener = subscribe(mosquitto.port)
    waited: list[float] = []
    until = player._until

    async def quickly(at_s: float, stop: Any) -> None:
        waited.append(at_s)
        await until(at_s - 3600, stop)

    monkeypatch.setattr(player, "_until", quickly)
    assert live("replay", recorded, "--broker", mosquitto.url, "--stream", "attic").code == 0
    assert waited[-1] - waited[0] == pytest.approx(5.9)
    listener.wait_for(lambda: listener.estimates("attic"))
    assert {estimate["stream"] for estimate in listener.estimates("attic")} == {"attic"}
    assert not listener.estimates("hall")


def test_another_model_beside_the_recorded_one(
    with_media: Any, live: Live, untrained_checkpoint: Path, tmp_path: Path
) -> None:
    import cv2

    path = altered(with_media[0], tmp_path / "other.mcap", nothing, checkpoint="0123456789ab", model="elder")
    picture = tmp_path / "two.png"
    outcome = live("replay", path, "--checkpoint", untrained_checkpoint, "--plot", picture)
    assert outcome.code == 0
    assert "elder (recorded)" in outcome.out
    assert "untrained" in outcome.out
    assert "100% same" in outcome.out
    assert f"picture: {picture}" in outcome.out
    image = cv2.imread(str(picture))
    assert image is not None
    assert image.shape[1] > 1000


def test_extracted_again_from_media(with_media: Any, live: Live, tmp_path: Path) -> None:
    again = tmp_path / "again.jsonl"
    outcome = live("replay", with_media[0], "--again", "--estimates", again)
    assert outcome.code == 0, outcome
    estimates = [json.loads(line) for line in again.read_text().splitlines()]
    recorded = messages_of(with_media[0], schema.ESTIMATE)
    assert abs(len(estimates) - len(recorded)) <= 1
    assert all(one["modalities"]["vision"]["present"] for one in estimates[5:])
    assert any(one["modalities"]["audio"]["present"] for one in estimates)
    assert outcome.out.startswith(f"{len(estimates)} estimates of 2.4 s, ")
    assert re.search(r"2[2-5] moments", outcome.out)


def test_words_are_recognised_again_as_asked_and_by_nothing_that_a_file_names(
    with_media: Any, refuse: Callable[..., str]
) -> None:
    assert "add --again" in refuse(2, "replay", with_media[0], "--speech", "base")
    assert "tiny.en hears English only" in refuse(1, "replay", with_media[0], "--again", "--language", "de")

    def listening(recorded: Mapping[str, object], **heard: object) -> Listening | None:
        """What a session of these settings is listened to with."""
        told: Any = SimpleNamespace(_session=SimpleNamespace(settings=recorded), _request=SimpleNamespace(heard=heard))
        found: Listening | None = vars(player.Replay)["_listening"].fget(told)
        return found

    recorded = {"speech": "base", "language": "it"}
    assert listening(recorded) == Listening("base", "it")
    assert listening(recorded, language="auto") == Listening("base", "auto")
    assert listening({"words": "off"}) is None
    with pytest.raises(SettingsInvalid, match="stranger/model; name a --speech"):
        listening({"speech": "stranger/model"})
    assert listening({"speech": "stranger/model"}, speech="tiny") == Listening("tiny")


def test_features_of_another_contract_are_extracted_again_where_media_are(
    with_media: Any, live: Live, tmp_path: Path
) -> None:
    path = altered(with_media[0], tmp_path / "old.mcap", nothing, features=elder_features(with_media[0]))
    outcome = live("replay", path)
    assert outcome.code == 0, outcome
    assert " estimates of 2.4 s" in outcome.out


def elder_features(path: Path) -> str:
    """The contract of a session with an earlier form of its voice rows."""
    specs = json.loads(Session.open(path).metadata["features"])
    return json.dumps([spec | ({"version": "0"} if spec["modality"] == "audio" else {}) for spec in specs])


# What cannot be replayed.


@pytest.mark.parametrize("change", ["sentiment", "emotion", "nan", "present", "nothing perceived", "revision"])
def test_an_estimate_that_was_altered_is_found(with_media: Any, live: Live, tmp_path: Path, change: str) -> None:
    def alter(topic: str, message: Any) -> None:
        if topic != schema.ESTIMATE or message.seq != 20:
            return
        if change == "sentiment":
            message.sentiment.value += 0.001
        elif change == "emotion":
            message.emotions.happy += 0.001
        elif change == "nan":
            message.sentiment.value = float("nan")
        elif change == "present":
            message.modalities.vision.present = False
        elif change == "nothing perceived":
            message.ClearField("emotions")
        else:
            message.revision = 3

    path = altered(with_media[0], tmp_path / "altered.mcap", alter)
    outcome = live("replay", path, "--verify")
    assert outcome.code == 1
    assert outcome.out.splitlines()[-1] == "not verified: more than 1e-05 apart"
    assert outcome.err == ""
    assert live("replay", path).code == 0


def test_a_model_that_is_not_here_is_named_with_the_remedy(with_media: Any, refuse: Refuse, tmp_path: Path) -> None:
    settings = json.dumps({"checkpoint": str(tmp_path / "gone")})
    path = altered(with_media[0], tmp_path / "gone.mcap", nothing, settings=settings)
    line = refuse(2, "replay", path)
    digest = Session.open(path).metadata["checkpoint"]
    assert line.startswith(
        f"{path} was recorded with the model untrained ({digest}), which is not at {tmp_path}/gone; "
    )
    assert "--checkpoint" in line
    path = altered(with_media[0], tmp_path / "another.mcap", nothing, checkpoint="0123456789ab")
    line = refuse(2, "replay", path)
    assert f"is another now ({digest})" in line
    assert "--checkpoint" in line


def test_features_of_another_contract_need_media(recorded: Path, refuse: Refuse, tmp_path: Path) -> None:
    path = altered(recorded, tmp_path / "old.mcap", nothing, features=elder_features(recorded))
    line = refuse(1, "replay", path)
    assert line.startswith("audio: the checkpoint was trained on other features (version: ")
    assert line.endswith(f"; {path} holds no media to extract them from")


def test_a_newer_session_asks_for_a_newer_program(recorded: Path, refuse: Refuse, tmp_path: Path) -> None:
    path = altered(recorded, tmp_path / "new.mcap", nothing, version="2")
    assert refuse(1, "replay", path).endswith("(session version 2, this one reads 1); update dhmd")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--again",), "--again: {} holds no media; record with --record-video and --record-audio"),
        (("--again", "--verify"), "--verify takes the recorded model and features; leave --checkpoint and --again out"),
        (
            ("--verify", "--checkpoint", "UNTRAINED"),
            "--verify takes the recorded model and features; leave --checkpoint",
        ),
        (("--broker", "nonsense"), "--broker"),
        (("--margin", "1.5"), "--margin: input should be less than or equal to 1, found 1.5"),
        (("--smoothing", "-1"), "--smoothing: input should be greater than or equal to 0, found -1"),
        (("--estimates", "/nowhere/x.jsonl"), "--estimates /nowhere/x.jsonl: cannot be written"),
        (("--plot", "x.png"), "--plot shows another model beside the recorded one; name it with --checkpoint"),
        (("--again", "--plot", "/nowhere/x.png"), "--plot /nowhere/x.png: there is no folder /nowhere; "),
    ],
)
def test_what_is_wrong_is_one_line(
    recorded: Path, refuse: Refuse, untrained_checkpoint: Path, words: tuple[str, ...], line: str
) -> None:
    words = tuple(word.replace("UNTRAINED", str(untrained_checkpoint)) for word in words)
    assert refuse(2, "replay", recorded, *words).startswith(line.format(recorded))


def test_cut_anywhere_it_replays_up_to_there_or_says_why_not(with_media: Any, live: Live, tmp_path: Path) -> None:
    data = with_media[0].read_bytes()
    path = tmp_path / "cut.mcap"
    chance = random.Random(1)
    counts = []
    for length in [0, 5, 300, *sorted(chance.sample(range(400, len(data)), 8)), len(data) - 1]:
        path.write_bytes(data[:length])
        outcome = live("replay", path, "--verify")
        if outcome.code == 0:
            assert outcome.out.startswith(f"{path} was cut; what is whole of it is replayed\n")
            counts.append(len(messages_of(path, schema.ESTIMATE)))
        else:
            assert outcome.code == 1
            assert outcome.out in ("", f"{path} was cut; what is whole of it is replayed\n")
            assert len(outcome.err.splitlines()) == 1
            assert outcome.err.startswith(f"error: {path}: ")
    assert counts == sorted(counts)
    assert counts[-1] == len(messages_of(with_media[0], schema.ESTIMATE))
