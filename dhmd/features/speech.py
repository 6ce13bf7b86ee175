"""Words: Whisper on CTranslate2 without its 30 s padding; the log-mel frames it eats; voice activity.

Model: Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision". Voice activity: Silero VAD.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from dhmd.assets.store import fetch
from dhmd.contract import ENGLISH, Word
from dhmd.errors import DHMDError
from dhmd.features.spoken_language import SpokenLanguage
from dhmd.features.timeline import SAMPLE_RATE_HZ

if TYPE_CHECKING:
    import ctranslate2
    from faster_whisper.tokenizer import Tokenizer

SPEECH_ASSET: Final = "faster-whisper-tiny.en"
"""The English model; its first layers also hear the voice, whatever words are recognised with."""
SPEECH_MODELS: Final = {name: f"faster-whisper-{name}" for name in ("tiny.en", "tiny", "base", "small")}
"""Models by name, smallest first: their assets."""
DEFAULT_SPEECH: Final = "tiny.en"
AUTO: Final = "auto"
"""The language is found in what is said."""

ENCODER_HOP: Final = 320
"""Samples an encoder frame: 50 frames a second."""

LONGEST_S: Final = 20.0
"""Speech that is recognised at once, at most."""

VOICE_FRAME: Final = 512
"""Samples a voice activity frame."""
_VOICE_CONTEXT: Final = 64

_FRAME_S: Final = ENCODER_HOP / SAMPLE_RATE_HZ
_PAUSE_POWER: Final = 1e-3
"""A frame 30 dB below the loudest of its word is a pause."""

_TRAILING: Final = (7 * SAMPLE_RATE_HZ, 12 * SAMPLE_RATE_HZ)
"""Samples of silence appended before recognition, tried in order until a hypothesis is confident. Trained on 30 s
windows, the model repeats itself and loses last words when speech fills its window. With 7 s, then 12 s where 7 s fail,
it is about as right as with 30 s at a third of the cost."""
_NO_SPEECH: Final = 0.6
"""Probability of the no-speech token from which on nothing is said."""
# A hypothesis that falls short of one of these is silence:
_LIKELIHOOD: Final = -1.0
"""Least mean log probability of a token."""
_COMPRESSION: Final = 2.4
"""Greatest ratio of text to its compressed size; repetition compresses well."""
_SQUEEZED: Final = 3
"""Words without any length from which on the text is longer than the sound."""

_SPEECH_BEGINS: Final = 0.5
_SPEECH_LASTS: Final = 0.35


class SpeechUnavailable(DHMDError):
    """faster-whisper is not installed. One line: cause and remedy."""


class LogMel:
    """Log-mel frames as the speech model eats them."""

    def __init__(self) -> None:
        try:
            from faster_whisper.feature_extractor import FeatureExtractor
        except ImportError as error:
            raise SpeechUnavailable(f"{error}; pip install faster-whisper") from error
        self._extract = FeatureExtractor()
        self.filters: Final[NDArray[np.float32]] = self._extract.mel_filters
        """(80, 201): share of each frequency in each band."""

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """samples: (N,) 16 kHz mono in [-1, 1], without padding. Returns (80, T), T even, frames of 10 ms."""
        mel = self._extract(samples, padding=0)
        return np.ascontiguousarray(mel[:, : mel.shape[1] // 2 * 2], np.float32)


class SpeechModel:
    """A speech model, safe to call from two threads at once.

    model: a name of SPEECH_MODELS, a folder with Whisper for CTranslate2, or a name on its hub. language: the one that
    is spoken, "auto" finds it. Raises SpeechUnavailable, AssetUnavailable.
    """

    multilingual = False

    def __init__(self, model: str = DEFAULT_SPEECH, language: str = AUTO) -> None:
        try:
            import ctranslate2
            import tokenizers
        except ImportError as error:
            raise SpeechUnavailable(f"{error}; pip install faster-whisper") from error
        folder = _folder_of(model)
        try:
            self._whisper = ctranslate2.models.Whisper(
                str(folder), device="cpu", compute_type="int8", inter_threads=2, intra_threads=1
            )
            self._vocabulary = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        except Exception as error:  # plain ones, of tokenizers
            if model in SPEECH_MODELS:
                raise
            raise SpeechUnavailable(f"--speech {model}: {str(error).splitlines()[0]}; see docs/languages.md") from error
        self.multilingual = self._whisper.is_multilingual
        self._tokens_a_second = 16 if self.multilingual else 8  # some scripts take several a letter
        self._tokenizers: dict[str, Tokenizer] = {}
        self.language: Final = language if self.multilingual else ENGLISH
        """The language that is spoken, or "auto"."""
        if language not in {AUTO, self.language} or not self._knows(self.language):
            raise SpeechUnavailable(
                f"--language {language}: {model} does not know it; " + "see docs/languages.md for those that it does"
                if self.multilingual
                else f"--language {language}: {model} hears English only; choose --speech base"
            )
        self._log_mel = LogMel()
        self._storage = ctranslate2.StorageView.from_array

    def spoken(self) -> SpokenLanguage:
        """Returns the language of a stream that begins."""
        return SpokenLanguage(None if self.language == AUTO else self.language)

    def transcribe(
        self, samples: NDArray[np.float32], start_s: float = 0.0, spoken: SpokenLanguage | None = None
    ) -> list[Word]:
        """Words of at most 20 s of speech, with times; none when the model is not confident that it heard any.

        samples: (N,) 16 kHz mono in [-1, 1], the first captured at `start_s`. spoken: the language of the stream, which
        takes in what these samples tell of it; None: of these samples alone. Greedy, with no text from before.
        """
        if len(samples) > LONGEST_S * SAMPLE_RATE_HZ:
            raise ValueError(f"{len(samples) / SAMPLE_RATE_HZ:.1f} s of speech at once; cut it into {LONGEST_S:.0f} s")
        if len(samples) < ENCODER_HOP:
            return []
        spoken = spoken or self.spoken()
        for silence in _TRAILING:
            words = self._hypothesis(samples, silence, start_s, spoken)
            if words is not None:
                return words
        return []

    def time_words(self, samples: NDArray[np.float32], text: str, start_s: float = 0.0) -> list[Word]:
        """The words of a text with the times at which at most 20 s of speech say them, in order.

        samples: (N,) 16 kHz mono in [-1, 1], the first captured at `start_s`. Words that are not said have times too,
        and a low probability.
        """
        if len(samples) > LONGEST_S * SAMPLE_RATE_HZ:
            raise ValueError(f"{len(samples) / SAMPLE_RATE_HZ:.1f} s of speech at once; cut it into {LONGEST_S:.0f} s")
        tokenizer = self._tokenizer(ENGLISH if self.language == AUTO else self.language)
        tokens = tokenizer.encode(f" {' '.join(text.split())}")
        if len(samples) < ENCODER_HOP or not tokens:
            return []
        encoded = self._encode(np.pad(samples, (0, _TRAILING[0])))
        return self._words(tokenizer, tokens, encoded, samples, start_s)

    def _hypothesis(
        self, samples: NDArray[np.float32], silence: int, start_s: float, spoken: SpokenLanguage
    ) -> list[Word] | None:
        """Words heard with that much silence after the samples; None when the model is not confident of them."""
        encoded = self._encode(np.pad(samples, (0, silence)))
        if spoken.asks(seconds := len(samples) / SAMPLE_RATE_HZ):
            told = self._whisper.detect_language(encoded)[0]
            spoken.heard({token.strip("<|>"): probability for token, probability in told}, seconds)
        tokenizer = self._tokenizer(ENGLISH if spoken.found is None else spoken.found.code)
        result = self._whisper.generate(
            encoded,
            [[*tokenizer.sot_sequence, tokenizer.no_timestamps]],
            beam_size=1,
            no_repeat_ngram_size=3,
            max_length=12 + self._tokens_a_second * len(samples) // SAMPLE_RATE_HZ,
            return_scores=True,
            return_no_speech_prob=True,
        )[0]
        if result.no_speech_prob >= _NO_SPEECH:
            return []
        tokens = [token for token in result.sequences_ids[0] if token < tokenizer.eot]
        if not tokens or not _confident(tokenizer.decode(tokens), result.scores[0]):
            return None
        words = self._words(tokenizer, tokens, encoded, samples, start_s)
        squeezed = sum(word.end_s - word.start_s < _FRAME_S for word in words)
        return words if squeezed < _SQUEEZED else None

    def _encode(self, samples: NDArray[np.float32]) -> ctranslate2.StorageView:
        return self._whisper.encode(self._storage(self._log_mel(samples)[None]))

    def _knows(self, language: str) -> bool:
        return language == AUTO or not self.multilingual or self._vocabulary.token_to_id(f"<|{language}|>") is not None

    def _tokenizer(self, language: str) -> Tokenizer:
        from faster_whisper.tokenizer import Tokenizer

        if language not in self._tokenizers:
            kind = {"task": "transcribe", "language": language} if self.multilingual else {}
            self._tokenizers[language] = Tokenizer(self._vocabulary, self.multilingual, **kind)
        return self._tokenizers[language]

    def _words(
        self,
        tokenizer: Tokenizer,
        tokens: list[int],
        encoded: ctranslate2.StorageView,
        samples: NDArray[np.float32],
        start_s: float,
    ) -> list[Word]:
        """Tokens joined to words; a token lasts from its first frame in the alignment to that of the next."""
        start, frames = list(tokenizer.sot_sequence), len(samples) // ENCODER_HOP * 2
        aligned = self._whisper.align(encoded, start, [tokens], frames)[0]
        token, frame = np.array(aligned.alignments).T  # the end of text is the last token
        begins = frame[np.searchsorted(token, np.arange(len(tokens) + 1))]  # (tokens + 1,)
        power = np.square(samples[: len(samples) // ENCODER_HOP * ENCODER_HOP]).reshape(-1, ENCODER_HOP).mean(1)
        words: list[Word] = []
        first = 0
        for text, count in _spans(tokenizer, tokens):
            probability = float(np.mean(aligned.text_token_probs[first : first + count]))
            begin, end = _audible(power, int(begins[first]), int(begins[first + count]))
            if any(character.isalnum() for character in text):  # a hypothesis may open with a dash or dots
                times_s = (start_s + begin * _FRAME_S, start_s + end * _FRAME_S)
                words.append(Word(text, *times_s, probability, tokenizer.language_code))
            first += count
        return words


def _folder_of(model: str) -> Path:
    """The folder of a speech model. Raises SpeechUnavailable, AssetUnavailable."""
    if model in SPEECH_MODELS:
        return fetch(SPEECH_MODELS[model])
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "model.bin").is_file():
            raise SpeechUnavailable(f"--speech {model}: no model.bin in it; give a folder with Whisper for CTranslate2")
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        names = ", ".join(SPEECH_MODELS)
        raise SpeechUnavailable(f"--speech {model}: give {names}, a folder, or a name on the hub (owner/name)")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(model, allow_patterns=["*.json", "*.txt", "model.bin"]))
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise SpeechUnavailable(f"--speech {model}: neither a folder nor fetched from the hub ({reason})") from error


def _confident(text: str, score: float) -> bool:
    said = text.strip().encode()
    compression = len(said) / len(zlib.compress(said))
    return score > _LIKELIHOOD and compression < _COMPRESSION


def _spans(tokenizer: Tokenizer, tokens: list[int]) -> list[tuple[str, int]]:
    """Words with their number of tokens. Punctuation stays with the word before; "K7" is said as two words."""
    spans: list[tuple[str, int]] = []
    for word, parts in zip(*tokenizer.split_to_word_tokens(tokens), strict=True):
        starts = [0] + [
            i
            for i in range(1, len(parts))
            if tokenizer.decode(parts[:i])[-1:].isalpha() and tokenizer.decode(parts[i:])[:1].isdigit()
        ]
        if spans and word.startswith("'") and word[1:2].isalpha() and tokenizer.language_code != ENGLISH:
            # French m'as, Italian l'amico, where those of English stay one word.
            text, before = spans.pop()
            spans.append((text + word.strip(), before + len(parts)))
            continue
        for begin, end in zip(starts, [*starts[1:], len(parts)], strict=True):
            text = tokenizer.decode(parts[begin:end]).strip() if len(starts) > 1 else word.strip()
            if spans and not any(character.isalnum() for character in text):
                text, before = spans[-1][0] + text, spans.pop()[1]
                spans.append((text, before + end - begin))
            else:
                spans.append((text, end - begin))
    return spans


def _audible(power: NDArray[np.float32], begin: int, end: int) -> tuple[int, int]:
    """Frames of a word without the pause at either end, which the alignment counts as part of it."""
    inside = power[begin:end]
    if len(inside) == 0:
        return begin, end
    loud = np.flatnonzero(inside >= inside.max() * _PAUSE_POWER)
    return begin + int(loud[0]), begin + int(loud[-1]) + 1


class VoiceActivity:
    """Streaming Silero VAD: whether somebody speaks, by successive frames of 512 samples (32 ms).

    Frames are counted from the start of the stream, whatever the sizes of the blocks. Speech begins where its
    probability reaches one half, and lasts until that falls below 0.35.
    """

    def __init__(self) -> None:
        self._session = _silero()
        self.reset()

    def reset(self) -> None:
        """Forget the stream: the next sample is the first of another one."""
        self._hidden = np.zeros((1, 1, 128), np.float32)
        self._cell = np.zeros((1, 1, 128), np.float32)
        self._pending = np.zeros(_VOICE_CONTEXT, np.float32)  # the context, then what is short of a frame
        self._speaking = False

    def push(self, samples: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Returns the decision on each of the frames that these samples complete, (N,)."""
        signal = np.concatenate([self._pending, samples])
        count = (len(signal) - _VOICE_CONTEXT) // VOICE_FRAME
        speaking = np.empty(count, np.bool_)
        for i in range(count):
            # One frame a call: a larger batch would round differently, and rows must not depend on block sizes.
            frame = signal[None, i * VOICE_FRAME : (i + 1) * VOICE_FRAME + _VOICE_CONTEXT]
            output, self._hidden, self._cell = self._session.run(
                None, {"input": frame, "h": self._hidden, "c": self._cell}
            )
            speaking[i] = self._speaking = output.item() >= (_SPEECH_LASTS if self._speaking else _SPEECH_BEGINS)
        self._pending = signal[count * VOICE_FRAME :]
        return speaking


def voice_activity_sha256() -> str:
    """Digest of the Silero weights that decide where there is voice; they ship inside faster-whisper."""
    return hashlib.sha256(silero_path().read_bytes()).hexdigest()


def silero_path() -> Path:
    try:
        from faster_whisper.utils import get_assets_path
    except ImportError as error:
        raise SpeechUnavailable(f"{error}; pip install faster-whisper") from error
    (path,) = Path(get_assets_path()).glob("silero_vad*.onnx")
    return path


@cache
def _silero() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise SpeechUnavailable(f"{error}; pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(silero_path()), sess_options=options, providers=["CPUExecutionProvider"])
