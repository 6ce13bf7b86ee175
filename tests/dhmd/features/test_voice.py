"""Voice rows: where there is voice, on a grid counted in samples, the same however the stream is cut."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from dhmd.assets.store import fetch
from dhmd.contract import Rows
from dhmd.features.prosody import PROSODY_HISTORY, PROSODY_ROW, prosody
from dhmd.features.speech import SPEECH_ASSET, LogMel
from dhmd.features.speech_encoder import SpeechEncoder
from dhmd.features.voice import CONTEXT, HOP, VOICE_WIDTH, VoiceExtractor
from dhmd.features.voice_network import EMBEDDING_WIDTH, FRAME_WIDTH, VoiceNetwork
from dhmd.labels import EMOTIONS

Sound = NDArray[np.float32]
RATE = 16_000
ROW_S = PROSODY_ROW / RATE


@pytest.fixture(scope="module")
def stream(say: Callable[[str], Sound]) -> Sound:
    """Silence, speech, silence, speech: longer than the encoder's context."""
    silence = np.zeros(RATE, np.float32)
    return np.concatenate([silence, say("I am so happy to see you today"), silence, say("leave me alone"), silence])


@pytest.fixture(scope="module")
def network() -> VoiceNetwork:
    """On the real encoder, with weights by chance on top."""
    torch.manual_seed(0)
    return VoiceNetwork(SpeechEncoder.load(fetch(SPEECH_ASSET) / "model.bin")).eval()


@pytest.fixture(scope="module")
def rows(stream: Sound, network: VoiceNetwork) -> Rows:
    return VoiceExtractor(network).push(stream, 10.0)


def push_in_blocks(extractor: VoiceExtractor, stream: Sound, sizes: list[int], start_s: float) -> Rows:
    parts, done, turn = [], 0, 0
    while done < len(stream):
        size = sizes[turn % len(sizes)]
        parts.append(extractor.push(stream[done : done + size], start_s + done / RATE))
        done, turn = done + size, turn + 1
    return Rows.concatenate(parts, VOICE_WIDTH)


@settings(max_examples=10, deadline=None)
@given(sizes=st.lists(st.integers(50, 20_000), min_size=1, max_size=8))
def test_rows_do_not_depend_on_the_blocks(sizes: list[int], stream: Sound, rows: Rows, network: VoiceNetwork) -> None:
    cut = push_in_blocks(VoiceExtractor(network), stream, sizes, 10.0)
    np.testing.assert_array_equal(cut.times_s, rows.times_s)
    np.testing.assert_array_equal(cut.values, rows.values)


def test_rows_stand_where_there_is_voice(stream: Sound, rows: Rows, say: Callable[[str], Sound]) -> None:
    first_end_s = 11.0 + len(say("I am so happy to see you today")) / RATE
    second_s = first_end_s + 1.0
    voiced = rows.times_s - ROW_S / 2  # the middle of each row
    assert voiced[0] == pytest.approx(11.0, abs=0.3)
    pause = (voiced > first_end_s + 0.5) & (voiced < second_s - 0.1)
    assert not pause.any()
    assert ((voiced > 11.1) & (voiced < first_end_s - 0.1)).sum() * ROW_S > 0.9 * (first_end_s - 11.2)
    assert (voiced > second_s).sum() * ROW_S > 0.5


def test_rows_end_on_the_grid_of_80_ms(rows: Rows) -> None:
    steps = (rows.times_s - 10.0) / ROW_S
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-6)
    assert (np.diff(rows.times_s) > 0).all()
    assert rows.values.dtype == np.float32
    assert rows.values.shape[1] == VOICE_WIDTH


def test_a_row_is_pooled_frames_the_embedding_and_the_prosody_of_its_80_ms(
    stream: Sound, rows: Rows, network: VoiceNetwork
) -> None:
    for time_s, row in zip(rows.times_s[::7], rows.values[::7], strict=True):
        end = round((time_s - 10.0) * RATE)
        hop_end = -(-end // HOP) * HOP
        with torch.inference_mode():
            heard = network(torch.from_numpy(LogMel()(stream[max(0, hop_end - CONTEXT) : hop_end]))[None])
        last = heard.frames.shape[1] - (hop_end - end) // 320
        frames, embedding, logits, melody = np.split(row, np.cumsum([FRAME_WIDTH, EMBEDDING_WIDTH, len(EMOTIONS)]))
        np.testing.assert_allclose(frames, heard.frames[0, last - 4 : last].mean(dim=0), atol=1e-5)
        np.testing.assert_allclose(embedding, heard.embedding[0], atol=1e-5)
        np.testing.assert_allclose(logits, heard.logits[0], atol=1e-5)
        np.testing.assert_allclose(melody, prosody(stream[end - PROSODY_ROW - PROSODY_HISTORY : end])[0], atol=1e-5)


def test_silence_has_no_rows_and_does_not_run_the_network(
    network: VoiceNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deaf(*_: object) -> None:
        raise AssertionError("the network ran in silence")

    monkeypatch.setattr(network, "forward", deaf)
    extractor = VoiceExtractor(network)
    assert len(extractor.push(np.zeros(5 * RATE, np.float32), 0.0)) == 0
    noise = np.random.default_rng(0).normal(0, 0.01, 5 * RATE).astype(np.float32)
    assert len(extractor.push(noise, 5.0)) == 0


def test_sound_that_is_overtaken_has_no_rows_and_leaves_the_others_as_they_are(
    stream: Sound, rows: Rows, network: VoiceNetwork
) -> None:
    extractor, begin = VoiceExtractor(network), 6 * HOP
    assert not len(extractor.push(stream[:begin], 10.0, overtaken=True))
    rest = extractor.push(stream[begin:], 10.0 + begin / RATE)
    kept = rows.times_s > 10.0 + begin / RATE
    np.testing.assert_array_equal(rest.times_s, rows.times_s[kept])
    np.testing.assert_array_equal(rest.values, rows.values[kept])


def test_a_gap_in_capture_times_starts_a_new_grid(stream: Sound, rows: Rows, network: VoiceNetwork) -> None:
    extractor = VoiceExtractor(network)
    cut = RATE + 12_345
    before = extractor.push(stream[:cut], 10.0)
    after = extractor.push(stream, 10.0 + cut / RATE + 0.05)
    np.testing.assert_array_equal(after.values, rows.values)
    np.testing.assert_allclose(after.times_s - rows.times_s, cut / RATE + 0.05, atol=1e-9)
    np.testing.assert_array_equal(before.values, rows.values[: len(before)])


def test_the_contract_names_what_shapes_the_rows(network: VoiceNetwork) -> None:
    loaded = VoiceNetwork.with_learned(SpeechEncoder.load(fetch(SPEECH_ASSET) / "model.bin"), network.learned())
    spec = VoiceExtractor(loaded).spec
    assert (spec.rate_hz, spec.steps, spec.width, spec.absent_after_s) == (12.5, 62, VOICE_WIDTH, 1.0)
    assert set(spec.weights) == {"faster-whisper-tiny.en", "silero-vad", "audio.safetensors"}
    assert all(len(digest) == 64 for digest in spec.weights.values())
