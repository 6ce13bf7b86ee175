"""Microphones, through PortAudio."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from realtime.capture.samples import SAMPLE_RATE_HZ, AudioBlock
from realtime.capture.steady import SteadySound
from realtime.clock import StreamClock
from realtime.errors import MicrophoneUnavailable

BLOCK_S = 0.032
BACKLOG_BLOCKS = 64
"""Two seconds between PortAudio's thread and ours; filled only if our thread is held up that long."""
START_TIMEOUT_S = 5.0
"""Longest wait for the first block; a sound server that slept takes a second or more."""
STALL_TIMEOUT_S = 2.0
CLOSE_TIMEOUT_S = 2.0
MOST_CHANNELS = 8
IN_USE = "close other programs that use it, or name another with --microphone"


@dataclass(frozen=True, slots=True)
class MicrophoneInfo:
    """name: what to give to Microphone. host: the sound system it is reached through."""

    name: str
    host: str
    channels: int
    rate_hz: float
    is_default: bool


class Microphone:
    """Blocks of a microphone, by its name, a part of it that no other has, or "default".

    Capture time is PortAudio's time at the converter (ADC), carried over to the stream clock when a block arrives and
    steadied by SampleClock. It is never put earlier than the arrival less the block and the stream's input latency.
    That bound is what remains where the sound system reports no time (0) or a wrong one: PulseAudio's ALSA plugin
    claims for its first second that blocks are 0.6 s old, which the unbroken sound that follows disproves. A device
    that does not take 16 kHz is recorded at its own rate and resampled.
    """

    def __init__(self, name: str, clock: StreamClock) -> None:
        self.name = name
        self.clock = clock
        self.overflows = 0
        """Losses of sound on its way here: PortAudio's input overflows, and blocks our thread was late for."""
        self._opened = False
        self._hangs = False
        """A sound system that died held on to a stream; PortAudio would wait for it when asked to start anew."""

    def blocks(self, stop: threading.Event) -> Iterator[AudioBlock]:
        """Open the microphone and yield its blocks until `stop`.

        Raises MicrophoneUnavailable when it cannot be opened, and when it stops delivering (pulled out).
        """
        sounddevice = _sounddevice()
        if self._opened and not self._hangs:
            # PortAudio lists devices when it starts: one that was pulled out and plugged in again is not on its list.
            sounddevice._terminate()  # noqa: SLF001 - there is no public way
            sounddevice._initialize()  # noqa: SLF001
        self._opened = True
        device = self._find(sounddevice)
        rate_hz, channels = _format(sounddevice, device)
        arrived: queue.Queue[tuple[NDArray[np.float32], float]] = queue.Queue(BACKLOG_BLOCKS)

        def record(data: NDArray[np.float32], frames: int, times: Any, status: Any) -> None:
            # Both clocks are read here, one after the other: how long this thread waited to run cancels out.
            adc_s = self.clock.from_foreign(times.inputBufferAdcTime, stream.time) if times.inputBufferAdcTime else 0.0
            measured_s = max(adc_s, self.clock.now() - frames / rate_hz - stream.latency)
            self.overflows += bool(status.input_overflow)
            try:
                arrived.put_nowait((data.copy() if channels > 1 else data[:, 0].copy(), measured_s))
            except queue.Full:
                self.overflows += 1

        try:
            stream = sounddevice.InputStream(
                device=device["index"],
                samplerate=rate_hz,
                channels=channels,
                dtype="float32",
                blocksize=round(rate_hz * BLOCK_S),
                callback=record,
            )
        except sounddevice.PortAudioError as error:
            raise MicrophoneUnavailable(f"{device['name']}: cannot be opened ({error.args[0]}); {IN_USE}") from None
        try:
            stream.start()
            yield from self._steadied(arrived, SteadySound(rate_hz, channels), stop)
        except sounddevice.PortAudioError as error:
            raise MicrophoneUnavailable(f"{device['name']}: cannot be started ({error.args[0]}); {IN_USE}") from None
        finally:
            self._let_go(stream)

    def _steadied(
        self, arrived: queue.Queue[tuple[NDArray[np.float32], float]], steady: SteadySound, stop: threading.Event
    ) -> Iterator[AudioBlock]:
        patience_s = START_TIMEOUT_S
        waited_since_s = self.clock.now()
        while not stop.is_set():
            try:
                samples, measured_s = arrived.get(timeout=0.1)
            except queue.Empty:
                if self.clock.now() - waited_since_s > patience_s:
                    raise MicrophoneUnavailable(f"{self.name}: delivers nothing; is it plugged in?") from None
                continue
            patience_s, waited_since_s = STALL_TIMEOUT_S, self.clock.now()
            samples, captured_s = steady.push(samples, measured_s)
            yield AudioBlock(samples, captured_s, arrived_s=self.clock.now())

    def _let_go(self, stream: Any) -> None:
        def close() -> None:
            stream.abort(ignore_errors=True)
            stream.close(ignore_errors=True)

        # ALSA's plugin for PulseAudio can wait for ever for a server that was killed.
        closing = threading.Thread(target=close, name="microphone-close", daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT_S)
        self._hangs |= closing.is_alive()

    def _find(self, sounddevice: ModuleType) -> dict[str, Any]:
        microphones = list_microphones()
        if not microphones:
            raise MicrophoneUnavailable("no microphone was found; connect one, or continue with --microphone none")
        try:
            found: dict[str, Any] = sounddevice.query_devices(None if self.name == "default" else self.name, "input")
        except (ValueError, sounddevice.PortAudioError):
            names = ", ".join(repr(microphone.name) for microphone in microphones)
            raise MicrophoneUnavailable(f"{self.name!r} does not name one microphone; there are: {names}") from None
        return found


def list_microphones() -> list[MicrophoneInfo]:
    """Devices with inputs. Raises MicrophoneUnavailable without PortAudio."""
    sounddevice = _sounddevice()
    default = sounddevice.default.device[0]
    return [
        MicrophoneInfo(
            name=device["name"],
            host=sounddevice.query_hostapis(device["hostapi"])["name"],
            channels=device["max_input_channels"],
            rate_hz=device["default_samplerate"],
            is_default=device["index"] == default,
        )
        for device in sounddevice.query_devices()
        if device["max_input_channels"] > 0
    ]


def _sounddevice() -> ModuleType:
    try:
        import sounddevice
    except ModuleNotFoundError:
        raise MicrophoneUnavailable(
            "sounddevice is missing, so no microphone can be read; pip install sounddevice"
        ) from None
    except OSError:
        raise MicrophoneUnavailable("PortAudio is missing; sudo apt install libportaudio2") from None
    module: ModuleType = sounddevice
    return module


def _format(sounddevice: ModuleType, device: dict[str, Any]) -> tuple[int, int]:
    """Rate and channels to record with: 16 kHz if the device takes it, else its own rate; all of its channels.

    All, as a sound server that is asked for one would add them up, even where they cancel. Names of sound servers claim
    to have dozens: of those, two.
    """
    native_hz, channels = round(device["default_samplerate"]), device["max_input_channels"]
    channels = channels if channels <= MOST_CHANNELS else 2
    offers = [(rate_hz, count) for rate_hz in (SAMPLE_RATE_HZ, native_hz) for count in (channels, 1)]
    for rate_hz, count in offers:
        try:
            sounddevice.check_input_settings(device["index"], count, "float32", samplerate=rate_hz)
        except sounddevice.PortAudioError:
            continue
        return rate_hz, count
    return native_hz, channels
