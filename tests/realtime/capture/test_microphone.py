"""Microphones through a real sound server: what is played into it is what comes out, at the right times."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realtime.capture.samples import SAMPLE_RATE_HZ

RECORD = """
import os, sys, threading, time
import numpy as np
from realtime.capture import microphone
from realtime.clock import StreamClock
from realtime.errors import MicrophoneUnavailable

path, name, rate_hz, channels, seconds, tries = sys.argv[1:]
if rate_hz != "0":
    microphone._format = lambda sounddevice, device: (int(rate_hz), int(channels))
stop = threading.Event()
clock = StreamClock()
source = microphone.Microphone(name, clock)
blocks = []
for left in reversed(range(int(tries))):
    try:
        for block in source.blocks(stop):
            print("recording", len(block.samples), flush=True)
            blocks.append(block)
            if sum(len(b.samples) for b in blocks) >= float(seconds) * 16000:
                stop.set()
        break
    except MicrophoneUnavailable as error:
        print(error, flush=True)
        if not left:
            os._exit(1)  # as dhmd-live does: nothing waits for a dead sound system
        time.sleep(0.5)
np.savez(path, samples=np.concatenate([b.samples for b in blocks]), lengths=[len(b.samples) for b in blocks],
         captured_s=[b.captured_s for b in blocks], arrived_s=[b.arrived_s for b in blocks],
         ended_s=clock.now(), overflows=source.overflows)
"""


def command(
    path: Path, name: str = "default", rate_hz: int = 0, channels: int = 0, seconds: float = 3.0, tries: int = 1
) -> list[str]:
    """Record in a process of its own, with the surroundings that PortAudio reads when it is loaded."""
    return [sys.executable, "-c", RECORD, *map(str, (path, name, rate_hz, channels, seconds, tries))]


@pytest.mark.parametrize(("rate_hz", "channels"), [(0, 0), (44_100, 2), (48_000, 1)], ids=["16k", "44k1 stereo", "48k"])
def test_a_tone_played_into_the_microphone(
    pulseaudio: Any, make_media: Callable[..., Path], tmp_path: Path, rate_hz: int, channels: int
) -> None:
    """At 16 kHz the device converts; else we do."""
    tone = make_media("tone.wav", "-f", "lavfi", "-i", "sine=440:r=48000:d=30,volume=4")
    playing = pulseaudio.play(tone)
    recording = tmp_path / "recording.npz"
    subprocess.run(
        command(recording, "default", rate_hz, channels), env=pulseaudio.environment, check=True, timeout=120
    )
    playing.kill()
    playing.wait()
    heard = np.load(recording)
    last_second = heard["samples"][-SAMPLE_RATE_HZ:]
    assert np.abs(np.fft.rfft(last_second)).argmax() == 440
    assert np.abs(last_second).max() == pytest.approx(0.5, abs=0.03)
    assert heard["samples"].dtype == np.float32
    assert heard["overflows"] == 0

    captured_s, ends_s = heard["captured_s"], heard["captured_s"] + heard["lengths"] / SAMPLE_RATE_HZ
    # Blocks touch, but for the slow correction of at most a twentieth.
    assert np.abs(captured_s[1:] - ends_s[:-1]).max() <= 0.06 * heard["lengths"].max() / SAMPLE_RATE_HZ
    # 16,000 samples are a second; the correction may use up the device's buffers, no more.
    counted_s = len(heard["samples"]) / SAMPLE_RATE_HZ
    assert ends_s[-1] - captured_s[0] == pytest.approx(counted_s, abs=0.15)
    # And they are on the stream clock, not on PortAudio's, which counts from 1970 here.
    assert 0 < captured_s[0] < ends_s[-1] < heard["ended_s"] + 0.1
    assert np.median(heard["arrived_s"] - ends_s) == pytest.approx(0.05, abs=0.2)


def test_a_stereo_microphone_whose_channels_cancel_is_heard(
    pulseaudio: Any, make_media: Callable[..., Path], tmp_path: Path
) -> None:
    channels = "0.5*sin(2*PI*440*t)|-0.5*sin(2*PI*440*t)"
    playing = pulseaudio.play(
        make_media("out_of_phase.wav", "-f", "lavfi", "-i", f"aevalsrc='{channels}':s=48000:d=30")
    )
    recording = tmp_path / "recording.npz"
    subprocess.run(command(recording), env=pulseaudio.environment, check=True, timeout=120)
    playing.kill()
    playing.wait()
    last_second = np.load(recording)["samples"][-SAMPLE_RATE_HZ:]
    assert np.abs(np.fft.rfft(last_second)).argmax() == 440
    assert np.abs(last_second).max() == pytest.approx(0.5, abs=0.03)


def test_an_unknown_name_lists_the_known_ones(pulseaudio: Any, tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path / "none", "Headset of Nobody"),
        env=pulseaudio.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == "'Headset of Nobody' does not name one microphone; there are: 'default'\n"


def test_microphones_are_listed(pulseaudio: Any) -> None:
    script = (
        "from realtime.capture.microphone import list_microphones as l; print([(m.name, m.is_default) for m in l()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=pulseaudio.environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == "[('default', True)]\n"


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_a_microphone_that_is_pulled_out_says_so(pulseaudio: Any, tmp_path: Path, fault: str) -> None:
    """Even where closing it never returns, as while the sound server is frozen."""
    recorder = subprocess.Popen(
        command(tmp_path / "none", seconds=1000), env=pulseaudio.environment, stdout=subprocess.PIPE, text=True
    )
    assert recorder.stdout is not None
    assert recorder.stdout.readline().startswith("recording")
    getattr(pulseaudio, fault)()
    lines = recorder.communicate(timeout=120)[0].splitlines()
    assert recorder.returncode == 1
    assert lines[-1] == "default: delivers nothing; is it plugged in?"


def test_a_microphone_that_comes_back_is_heard_again(
    pulseaudio: Any, make_media: Callable[..., Path], tmp_path: Path
) -> None:
    recording = tmp_path / "recording.npz"
    recorder = subprocess.Popen(
        command(recording, seconds=4.0, tries=100), env=pulseaudio.environment, stdout=subprocess.PIPE, text=True
    )
    assert recorder.stdout is not None
    assert recorder.stdout.readline().startswith("recording")
    pulseaudio.kill()
    while (line := recorder.stdout.readline()).startswith("recording"):
        pass
    assert line, "it ended before it noticed"
    pulseaudio.start()
    playing = pulseaudio.play(make_media("tone.wav", "-f", "lavfi", "-i", "sine=440:r=48000:d=30,volume=4"))
    recorder.communicate(timeout=120)
    playing.kill()
    playing.wait()
    heard = np.load(recording)
    assert np.abs(np.fft.rfft(heard["samples"][-SAMPLE_RATE_HZ:])).argmax() == 440
    assert (np.diff(heard["captured_s"]) > 0).all(), "what was not heard is a gap in time"


def test_a_machine_without_microphone(pulseaudio: Any, tmp_path: Path) -> None:
    pulseaudio.kill()
    done = subprocess.run(
        command(tmp_path / "none"), env=pulseaudio.environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert done.stdout == "no microphone was found; connect one, or continue with --microphone none\n"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise OSError('PortAudio library not found')", "PortAudio is missing; sudo apt install libportaudio2"),
        (
            "raise ModuleNotFoundError('sounddevice')",
            "sounddevice is missing, so no microphone can be read; pip install sounddevice",
        ),
    ],
    ids=["library", "package"],
)
def test_what_is_missing_is_named_with_the_command_that_installs_it(tmp_path: Path, fault: str, message: str) -> None:
    (tmp_path / "sounddevice.py").write_text(fault)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command(tmp_path / "none"),
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, f"{message}\n")
