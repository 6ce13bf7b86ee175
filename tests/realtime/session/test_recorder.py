"""The recorder alone: what it is handed comes back, whatever the disk, the clock and the pictures do meanwhile."""

from __future__ import annotations

import contextlib
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dhmd.contract import Rows, Word
from dhmd.features.face import FaceObservation
from dhmd.modality import Modality
from dhmd.session import Session, schema
from dhmd.session.reader import MAGIC, landmarks_of, rows_of, words_of
from realtime.capture.samples import AudioBlock, VideoFrame
from realtime.clock import MediaClock, StreamClock
from realtime.errors import SettingsInvalid
from realtime.perception.transcript import TranscriptUpdate
from realtime.session import recorder as module
from realtime.session.media import samples
from realtime.session.recorder import Recorder, new_file
from realtime.session.writer import SessionWriter
from realtime.workers import WorkerState, WorkerStatus

HEAD = {
    "stream": "hall", "hop_s": "0.1", "timed": "true", "model": "base", "checkpoint": "0123456789ab",
    "features": "[]", "settings": "{}",
}  # fmt: skip


@contextlib.contextmanager
def recording(path: Path, clock: StreamClock | None = None, **switches: bool) -> Iterator[Recorder]:
    with new_file(path) as file, Recorder(file, clock or StreamClock(), HEAD, **switches) as recorder:
        yield recorder


def rows(number: int, count: int = 1, width: int = 4) -> Rows:
    values = np.random.default_rng(number).normal(size=(count, width)).astype(np.float16).astype(np.float32)
    return Rows(number / 10 + np.arange(count) / 1000, values)


def tell(recorder: Recorder, count: int, first: int = 0) -> None:
    for number in range(first, first + count):
        recorder.on_rows(Modality.VISION, rows(number), number + 1)


def revisions(path: Path) -> list[int]:
    return [r.message.revision for r in Session.open(path).records(set(schema.FEATURES.values()))]


def test_what_is_told_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "session.mcap"
    landmarks = np.random.default_rng(1).uniform(-0.2, 1.2, (478, 3)).astype(np.float32)
    seen = FaceObservation(0.4, rows(4), 2, (0.1, 0.2, 0.5, 0.9), landmarks)
    heard = TranscriptUpdate((Word("good", 0.5, 0.7, 0.9),), (Word("mor", 0.7, 0.9, 0.4),), 1.5)
    with recording(path) as recorder:
        recorder.on_rows(Modality.AUDIO, rows(3, 5, 7), 1)
        recorder.on_face(seen)
        recorder.on_words(heard, 2)
        recorder.on_worker(WorkerStatus("video", WorkerState.RESTARTING, "pulled out", 0.5, 3))
        recorder.mark(0.5, 2.5, "happy")
        recorder.mark(2.5, 3.5, sentiment=-1.5)
    session = Session.open(path)
    assert session.complete
    assert session.metadata[schema.CHECKSUM] == schema.checksum(session.metadata)
    by_topic: dict[str, list[Any]] = {}
    for record in session.records():
        by_topic.setdefault(record.topic, []).append(record)
    [audio] = by_topic[schema.FEATURES[Modality.AUDIO]]
    assert np.array_equal(rows_of(audio.message).values, rows(3, 5, 7).values)
    assert np.array_equal(rows_of(audio.message).times_s, rows(3, 5, 7).times_s)
    assert audio.captured_s == pytest.approx(0.304, abs=1e-6)
    [face] = by_topic[schema.FACE]
    assert (face.message.faces, face.message.captured_s) == (2, 0.4)
    assert list(face.message.box) == pytest.approx([0.1, 0.2, 0.5, 0.9])
    [points] = by_topic[schema.LANDMARKS]
    assert np.abs(landmarks_of(points.message) - landmarks[:, :2]).max() <= 0.00051
    [words] = by_topic[schema.WORDS]
    assert [word.text for word in (*words_of(words.message.final), *words_of(words.message.partial))] == ["good", "mor"]
    assert (words.message.revision, words.message.skipped_s) == (2, 1.5)
    [status] = by_topic[schema.STATUS]
    assert (status.message.worker, status.message.reason, status.message.restarts) == ("video", "pulled out", 3)
    named, felt = by_topic[schema.MARK]
    assert (named.message.emotion, named.message.HasField("sentiment"), named.message.end_s) == ("happy", False, 2.5)
    assert (felt.message.HasField("emotion"), felt.message.sentiment) == (False, -1.5)


def test_words_that_stay_as_they_are_are_told_once(tmp_path: Path) -> None:
    path = tmp_path / "session.mcap"
    one, other = Word("good", 0.5, 0.7), Word("goods", 0.5, 0.8)
    partial = [(), (one,), (one,), (other,), (), ()]
    with recording(path) as recorder:
        for number, words in enumerate(partial):
            recorder.on_words(TranscriptUpdate((), words, 0.0), number)
        recorder.on_words(TranscriptUpdate((one,), (), 0.0), 9)
        recorder.on_words(TranscriptUpdate((one,), (), 0.0), 10)
    assert [r.message.revision for r in Session.open(path).records({schema.WORDS})] == [0, 1, 3, 4, 9, 10]


def test_what_finds_the_queue_full_is_counted_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_MESSAGES", 5)
    path = tmp_path / "session.mcap"
    with new_file(path) as file:
        recorder = Recorder(file, StreamClock(), HEAD)
        tell(recorder, 8)  # nobody writes yet
        recorder.on_worker(WorkerStatus("video", WorkerState.RUNNING))
        assert recorder.lost == 4
        recorder.start()
        recorder.close()
    assert revisions(path) == [1, 2, 3, 4, 5]
    lost = [r.message for r in Session.open(path).records({schema.LOST})]
    assert {m.topic: m.count for m in lost} == {schema.FEATURES[Modality.VISION]: 3, schema.STATUS: 1}


def test_large_pictures_fill_the_queue_by_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_BYTES", 100_000)
    path = tmp_path / "session.mcap"
    picture = np.zeros((100, 100, 3), np.uint8)
    with new_file(path) as file:
        recorder = Recorder(file, StreamClock(), HEAD, video=True)
        for number in range(5):
            recorder.on_frame(VideoFrame(picture, number / 10, number / 10))
        assert recorder.lost == 2
        recorder.start()
        recorder.close()
    assert len(list(samples(Session.open(path)))) == 3


def test_a_queue_that_fills_is_emptied_before_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large pictures come to more than the queue holds while a chunk lasts."""
    monkeypatch.setattr(module, "QUEUE_BYTES", 400_000)
    monkeypatch.setattr(module, "CHUNK_S", 3600.0)
    monkeypatch.setattr(module, "ENCODE_S", 3600.0)
    written = threading.Semaphore(0)
    add = module.SessionWriter.add

    def counted(self: Any, *arguments: Any) -> None:
        add(self, *arguments)
        written.release()

    monkeypatch.setattr(module.SessionWriter, "add", counted)
    with recording(tmp_path / "session.mcap", video=True) as recorder:
        for number in range(20):
            recorder.on_frame(VideoFrame(np.zeros((200, 200, 3), np.uint8), number / 10, number / 10))
            assert written.acquire(timeout=100)
        assert recorder.lost == 0


def test_where_time_is_a_file_s_own_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_MESSAGES", 5)
    path = tmp_path / "session.mcap"
    with recording(path, MediaClock(), patient=True) as recorder:
        others = [threading.Thread(target=tell, args=(recorder, 100, 1000 * i)) for i in range(3)]
        for other in others:
            other.start()
        for other in others:
            other.join()
    found = revisions(path)
    assert len(found) == 300
    assert recorder.lost == 0
    for i in range(3):
        mine = [n for n in found if 1000 * i < n <= 1000 * i + 100]
        assert mine == sorted(mine)


def wait_for(recorder: Recorder) -> str:
    deadline_s = time.monotonic() + 120
    while recorder.failed is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    return recorder.failed


def fill(recorder: Recorder) -> int:
    """Tell more than the disk takes; returns how many rows."""
    count = 0
    while recorder.failed is None:
        recorder.on_rows(Modality.VISION, rows(count, 1, 500), count + 1)
        count += 1
        time.sleep(0.005)
    return count


def test_a_full_disk_stops_the_recording_alone(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "CHUNK_S", 0.02)
    path = small_disk / "session.mcap"
    told: list[WorkerStatus] = []
    with new_file(path) as file:
        recorder = Recorder(file, StreamClock(), HEAD)
        recorder.start(told.append)
        count = fill(recorder)
        tell(recorder, 10)  # and goes on
        recorder.close()
    line = f"{path}: No space left on device"
    assert [(s.worker, s.state, s.reason) for s in told] == [
        ("recording", WorkerState.RUNNING, ""),
        ("recording", WorkerState.FAILED, line),
    ]
    assert [r.getMessage() for r in caplog.records] == [
        f"recording stopped, {line}; what was written is kept, recognition continues"
    ]
    found = revisions(path)
    assert found == list(range(1, len(found) + 1))
    assert 10 < len(found) < count
    assert not Session.open(path).complete


def test_what_is_left_on_a_full_disk_ends_with_a_whole_chunk(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Room that comes back before the file is closed is not filled with the rest of a chunk."""
    monkeypatch.setattr(module, "CHUNK_S", 0.02)
    other = small_disk / "other"
    other.write_bytes(bytes(60_000))
    path = small_disk / "session.mcap"
    with new_file(path) as file:
        recorder = Recorder(file, StreamClock(), HEAD)
        recorder.start()
        fill(recorder)
        other.unlink()
        recorder.close()
    assert revisions(path)
    data = path.read_bytes()
    place = len(MAGIC)
    while place < len(data):
        opcode, length = struct.unpack_from("<BQ", data, place)
        assert opcode
        place += 9 + length
    assert place == len(data)


def test_a_disk_that_is_full_from_the_start_leaves_no_file(small_disk: Path) -> None:
    with contextlib.suppress(OSError), (small_disk / "other").open("wb", buffering=0) as other:
        while other.write(bytes(4096)):
            pass
    path = small_disk / "session.mcap"
    with recording(path) as recorder:
        assert wait_for(recorder) == f"{path}: No space left on device"
    assert not path.exists()


LIMITED = """
import resource, signal, sys, time
from pathlib import Path
import numpy as np
from dhmd.contract import Rows
from dhmd.modality import Modality
from realtime.clock import StreamClock
from realtime.session import recorder as module

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
module.CHUNK_S = 0.02
chance = np.random.default_rng(1)
with module.new_file(Path(sys.argv[1])) as file, module.Recorder(file, StreamClock(), {head}) as recorder:
    for number in range(100_000):
        if recorder.failed:
            break
        values = chance.normal(size=(1, 500)).astype(np.float16).astype(np.float32)
        recorder.on_rows(Modality.VISION, Rows(np.array([number / 10]), values), number + 1)
        time.sleep(0.005)
print(recorder.failed)
"""


def test_a_file_that_may_grow_no_more_ends_with_a_whole_chunk(tmp_path: Path) -> None:
    path = tmp_path / "session.mcap"
    program = LIMITED.replace("{head}", repr(HEAD))
    done = subprocess.run([sys.executable, "-c", program, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{path}: File too large\n"), done.stderr
    found = revisions(path)
    assert found == list(range(1, len(found) + 1))
    assert len(found) > 2


def test_whatever_stops_the_writing_thread_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "session.mcap"
    with recording(path, MediaClock(), patient=True, video=True) as recorder:
        tell(recorder, 3)
        recorder.on_frame(VideoFrame(np.zeros((1, 1, 3), np.uint8), 0.1, 0.1))  # of no picture is film made
        wait_for(recorder)
        tell(recorder, 10_000)  # nobody waits for who is gone
    assert len(caplog.records) == 1
    assert Session.open(path).metadata["stream"] == "hall"


@pytest.mark.parametrize("what", ["file", "folder", "missing folder", "loose end"])
def test_nothing_is_written_over(tmp_path: Path, what: str) -> None:
    path = tmp_path / "session.mcap"
    if what == "file":
        path.write_bytes(b"mine")
    elif what == "folder":
        path.mkdir()
    elif what == "loose end":
        path.symlink_to(tmp_path / "nowhere")
    else:
        path = tmp_path / "none" / "session.mcap"
    with pytest.raises(SettingsInvalid) as caught, new_file(path):
        pass
    assert str(caught.value).startswith(f"--record {path}: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "nowhere").exists()
    if what == "file":
        assert path.read_bytes() == b"mine"


def test_of_two_recorders_on_one_path_the_second_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "session.mcap"
    with recording(path) as recorder:
        tell(recorder, 3)
        with (
            pytest.raises(SettingsInvalid, match="already exists; name another file, or move it away"),
            new_file(path),
        ):
            pass
        tell(recorder, 3, first=3)
    assert revisions(path) == [1, 2, 3, 4, 5, 6]


def test_a_file_that_is_left_empty_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "session.mcap"

    def fail() -> None:
        with new_file(path) as file:
            Recorder(file, StreamClock(), HEAD)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not path.exists()


def test_a_wall_clock_that_is_set_moves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wall = [2_000_000_000.0]
    monkeypatch.setattr(time, "time", lambda: wall[0])
    clock = StreamClock()
    path = tmp_path / "session.mcap"
    with recording(path, clock) as recorder:
        tell(recorder, 3)
        wall[0] -= 86_400
        tell(recorder, 3, first=3)
        wall[0] += 1_000_000
        tell(recorder, 3, first=6)
        ended_s = clock.now()
    session = Session.open(path)
    assert session.epoch_unix == 2_000_000_000.0
    arrived_s = [r.arrived_s for r in session.records()]
    assert arrived_s == sorted(arrived_s)
    assert -1e-6 <= arrived_s[0] <= arrived_s[-1] <= ended_s


def test_at_most_a_second_waits_for_the_disk(tmp_path: Path) -> None:
    """A chunk's time, and some for writing it. That a killed run keeps the rest is tested by killing some."""
    assert 0.5 <= module.CHUNK_S <= 0.9
    path = tmp_path / "session.mcap"
    with recording(path) as recorder:
        tell(recorder, 3)
        deadline_s = time.monotonic() + 120
        while not path.stat().st_size or not revisions(path):
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        assert not Session.open(path).complete


def test_what_a_long_recording_keeps_in_memory_is_small(tmp_path: Path) -> None:
    """An entry of the index for each chunk: a hundred bytes and some, and ten a topic."""
    path = tmp_path / "session.mcap"
    topics = (schema.FACE, schema.STATUS, schema.MARK, schema.LOST, schema.WORDS, schema.ESTIMATE)
    kinds = schema.message_classes()
    with path.open("wb") as file:
        writer = SessionWriter(file, 1e9, {**HEAD, "version": "1", "epoch_unix": "1e9"})

        def chunks(first: int, count: int) -> None:
            for number in range(first, first + count):
                for topic in topics:
                    writer.add(topic, number, number, lambda when, topic=topic: kinds[topic](timestamp=when))  # type: ignore[misc]
                writer.end_chunk()

        chunks(0, 50)
        tracemalloc.start()
        try:
            chunks(50, 400)
            assert tracemalloc.get_traced_memory()[0] < 400 * 300
        finally:
            tracemalloc.stop()
        writer.finish()
    session = Session.open(path)
    assert session.stated_end_s() == 449
    assert [record.arrived_s for record in session.records({schema.FACE}, since_s=440)] == list(range(440, 450))


def a_picture(width: int, height: int, phase: float) -> NDArray[np.uint8]:
    """Soft shades that move."""
    y, x = np.mgrid[0:height, 0:width]
    shades = [128 + 100 * np.sin((x + 2 * y) / 23 + phase + channel) for channel in range(3)]
    return np.stack(shades, axis=-1).astype(np.uint8)


def likeness_db(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Peak signal to noise ratio."""
    return float(10 * np.log10(255**2 / np.mean((one.astype(float) - other) ** 2)))


def test_pictures_come_back_whatever_their_size(tmp_path: Path) -> None:
    """A camera may change its mode; film has even sides, so of odd ones the last row or column is left out."""
    path = tmp_path / "session.mcap"
    sizes = [(160, 120)] * 40 + [(121, 91)] * 3 + [(64, 48)] * 3 + [(160, 120)] * 3 + [(33, 17)] * 2
    pictures = [a_picture(width, height, number / 5) for number, (width, height) in enumerate(sizes)]
    with recording(path, MediaClock(), video=True, patient=True) as recorder:
        for number, picture in enumerate(pictures):
            recorder.on_frame(VideoFrame(picture, number / 15, number / 15))
    frames = [frame for frame in samples(Session.open(path)) if isinstance(frame, VideoFrame)]
    assert [frame.captured_s for frame in frames] == pytest.approx([n / 15 for n in range(len(sizes))], abs=1e-6)
    for frame, picture in zip(frames, pictures, strict=True):
        height, width = (side // 2 * 2 for side in picture.shape[:2])
        assert frame.image.shape == (height, width, 3)
        assert likeness_db(frame.image, picture[:height, :width]) > 30


def test_sound_comes_back_to_the_sample(tmp_path: Path) -> None:
    path = tmp_path / "session.mcap"
    whole = np.random.default_rng(5).integers(-32768, 32768, 16_000).astype(np.float32) / 32768
    loud = np.array([1.0, -1.0, 1.7, -1.7, 0.0], np.float32)
    with recording(path, MediaClock(), sound=True, patient=True) as recorder:
        for start in range(0, 16_000, 1600):
            recorder.on_sound(AudioBlock(whole[start : start + 1600], start / 16_000, start / 16_000 + 0.1))
        recorder.on_sound(AudioBlock(loud, 1.0, 1.1))
        recorder.on_frame(VideoFrame(np.zeros((8, 8, 3), np.uint8), 1.0, 1.0))  # not asked for
    blocks = [block for block in samples(Session.open(path)) if isinstance(block, AudioBlock)]
    assert np.array_equal(np.concatenate([block.samples for block in blocks[:-1]]), whole)
    assert blocks[-1].samples.tolist() == [32767 / 32768, -1.0, 32767 / 32768, -1.0, 0.0]
    assert [block.captured_s for block in blocks] == pytest.approx([n / 10 for n in range(11)], abs=1e-6)
    assert not list(Session.open(path).records({schema.VIDEO}))
