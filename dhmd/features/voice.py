"""The voice: at 12.5 Hz what the voice network makes of 80 ms and of the seconds up to them, and their prosody."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dhmd.assets.store import sha256_of
from dhmd.contract import FeatureSpec, Rows
from dhmd.features.prosody import PROSODY_HISTORY, PROSODY_ROW, PROSODY_WIDTH, prosody
from dhmd.features.several import SPAN, Overlaps, SeveralVoices
from dhmd.features.speech import ENCODER_HOP, SPEECH_ASSET, VOICE_FRAME, LogMel, VoiceActivity, voice_activity_sha256
from dhmd.features.timeline import SAMPLE_RATE_HZ, SampleTimeline
from dhmd.features.voice_network import EMBEDDING_WIDTH, FRAME_WIDTH, Heard, VoiceNetwork
from dhmd.labels import EMOTIONS
from dhmd.modality import Modality

VOICE_WIDTH: Final = FRAME_WIDTH + EMBEDDING_WIDTH + len(EMOTIONS) + PROSODY_WIDTH
"""Numbers in a row: frame features of its 80 ms, embedding and emotion logits of the seconds up to the end of its hop,
prosody of its 80 ms."""
HOP: Final = 5120
"""Samples between two runs of the network: 0.32 s, four rows."""
CONTEXT: Final = 51_200
"""Samples the network sees at each run, at most: 3.2 s."""
_HANGOVER: Final = 3840
"""Samples after speech that still count as voice: 0.24 s, so that gaps between syllables make no holes."""


class VoiceExtractor:
    """Voice of one continuous stream.

    The grid of hops is counted from the first sample of the stream, so that the rows depend on the samples alone, not
    on the blocks they come in. A gap in the capture times starts a new stream. In silence the network does not run.

    overlaps: when several voices were heard at once; never where the network's encoder is adapted.
    """

    def __init__(self, network: VoiceNetwork) -> None:
        self.network = network.eval()
        self.overlaps: Final = Overlaps()
        self._several = None if network.adapted else SeveralVoices.load()
        self._log_mel = LogMel()
        self._activity = VoiceActivity()
        self._timeline = SampleTimeline()
        self.spec: Final = FeatureSpec(
            modality=Modality.AUDIO,
            extractor="whisper-encoder+voice-network+prosody",
            version="2",
            width=VOICE_WIDTH,
            rate_hz=SAMPLE_RATE_HZ / PROSODY_ROW,
            steps=62,
            window_s=5.0,
            absent_after_s=1.0,
            weights={
                SPEECH_ASSET: sha256_of(SPEECH_ASSET, "model.bin"),
                "silero-vad": voice_activity_sha256(),
                "audio.safetensors": network.learned_sha256,
            },
        )
        self._begin()

    def _begin(self) -> None:
        self._activity.reset()
        self._past = np.zeros(0, np.float32)  # samples before the hop under way, at most the context of a run
        self._hop = np.zeros(0, np.float32)
        self._done = 0  # samples of the hops that are finished
        self._voiced_until = 0

    def due(self, count: int) -> bool:
        """Returns whether so many samples more complete a hop, which takes some computing."""
        return len(self._hop) + count >= HOP

    def push(self, samples: NDArray[np.float32], captured_s: float, *, overtaken: bool = False) -> Rows:
        """Rows of the hops that these samples complete.

        samples: (N,) 16 kHz mono in [-1, 1], the first captured at `captured_s` on the stream clock. overtaken: leave
        the rows out, since much newer sound waits; the rows of that are the same as if these had been made.
        """
        if self._timeline.append(len(samples), captured_s):
            self._begin()
        signal = np.concatenate([self._hop, samples])
        finished = len(signal) // HOP
        parts = [self._finish(signal[i * HOP : (i + 1) * HOP], overtaken) for i in range(finished)]
        self._hop = signal[finished * HOP :]
        return Rows.concatenate(parts, VOICE_WIDTH)

    def _finish(self, hop: NDArray[np.float32], overtaken: bool) -> Rows:
        voiced = self._voiced(hop)
        signal = np.concatenate([self._past, hop])
        self._past = signal[-(CONTEXT - HOP) :]
        self._done += HOP
        if overtaken or not voiced.any():
            return Rows.empty(VOICE_WIDTH)
        heard = self._heard(signal)
        short = max(0, HOP + PROSODY_HISTORY - len(signal))
        melody = prosody(np.pad(signal, (short, 0))[-(HOP + PROSODY_HISTORY) :])
        ends = self._done - HOP + PROSODY_ROW * np.arange(1, HOP // PROSODY_ROW + 1)
        times_s = np.array([self._timeline.time_of(int(end)) for end in ends])
        return Rows(times_s[voiced], np.concatenate([heard, melody], axis=1)[voiced])

    def _heard(self, signal: NDArray[np.float32]) -> NDArray[np.float32]:
        """Newest frames pooled to rows, embedding and logits: (rows of a hop, VOICE_WIDTH - PROSODY_WIDTH)."""
        with torch.inference_mode():
            states, statistics = self.network.listen(torch.from_numpy(self._log_mel(signal))[None])
            rows: NDArray[np.float32] = _rows(self.network.told(states, statistics)).numpy()
            if self._several is not None and states.shape[1] >= SPAN:
                self.overlaps.add(self._timeline.time_of(self._done), float(self._several(states)))
        return rows

    def _voiced(self, hop: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Presence of voice in each row, (rows of a hop,). A hop is a whole number of activity frames."""
        speaking = self._activity.push(hop)
        voiced = np.zeros(HOP, np.bool_)
        voiced[: max(0, self._voiced_until - self._done)] = True
        for frame in np.flatnonzero(speaking):
            end = int(frame + 1) * VOICE_FRAME + _HANGOVER
            voiced[frame * VOICE_FRAME : end] = True
            self._voiced_until = self._done + end
        return np.array([row.any() for row in voiced.reshape(-1, PROSODY_ROW)], np.bool_)


def newest(network: VoiceNetwork, mel: Tensor) -> Tensor:
    """Frames of the newest hop pooled to rows, embedding and logits: (rows of a hop, VOICE_WIDTH - PROSODY_WIDTH).

    mel: (1, 80, T) log-mel frames of 10 ms, up to the end of the hop.
    """
    return _rows(network(mel))


def _rows(heard: Heard) -> Tensor:
    frames = heard.frames[0, -HOP // ENCODER_HOP :].reshape(-1, PROSODY_ROW // ENCODER_HOP, FRAME_WIDTH).mean(dim=1)
    return torch.cat([frames, torch.cat([heard.embedding, heard.logits], dim=1).expand(len(frames), -1)], dim=1)
