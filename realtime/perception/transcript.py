"""Words of a stream while it is spoken: voice activity, recognition of the growing utterance, word agreement."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from dhmd.contract import Language, Word
from dhmd.features.speech import VOICE_FRAME, SpeechModel, VoiceActivity
from dhmd.features.timeline import SampleTimeline
from realtime.capture.samples import SAMPLE_RATE_HZ, AudioBlock
from realtime.perception.agreement import LocalAgreement
from realtime.perception.rates import WORDS_S

FRAME_S: Final = VOICE_FRAME / SAMPLE_RATE_HZ
"""Everything below counts in frames of voice activity, 32 ms, so that nothing depends on the sizes of the blocks."""


def _frames(seconds: float) -> int:
    return round(seconds / FRAME_S)


BUFFER_S: Final = 15.0
"""Sound kept for recognition, at most. Falling behind by more, the transcript skips ahead."""

_LEAD: Final = _frames(0.64)  # sound before the first frame of speech; activity is often noticed late
_PAUSE: Final = _frames(0.6)  # silence that ends an utterance
_TAIL: Final = _frames(0.2)  # silence after the last speech that is recognised with it
_MISSED: Final = _frames(0.8)  # speech without a word, of an utterance that has ended, that was not understood
_LONG: Final = _frames(3.0)  # likewise of one that goes on
_LEAST_SPEECH: Final = 3  # frames of speech below which a sound is no utterance
_CATCH_UP: Final = _frames(3.0)  # further behind than this, hypotheses in between are left out
_BUFFER: Final = _frames(BUFFER_S)
_KEPT: Final = _frames(5.0)  # what is kept of the buffer when skipping ahead, or when nothing was understood
_TRIM: Final = _frames(8.0)  # longer utterances let go of sound whose words are final
_FORCED_S: Final = 3.0  # in an utterance about to fill the buffer, words older than this become final unagreed

# Mean probability of a hypothesis' words from which on an utterance is understood: speech in a language that the model
# does not know becomes words of one that it knows, of which it is never sure. So where nothing was said before, after
# an utterance that was clearly understood, as short ones are improbable in any language, and after one that was not.
_SURE: Final = 0.5
_SURE_AFTER_CLEAR: Final = 0.4
_SURE_AFTER_MISSED: Final = 0.66
_CLEAR: Final = 0.7
_EASE: Final = 0.1
"""By so much less sure is a model that knows many languages."""


@dataclass(frozen=True, slots=True)
class TranscriptUpdate:
    """A change that one recognition made.

    final: words that became final; they never change. partial: words heard after the final ones, which still may.
    skipped_s: seconds of speech left out so far because recognition fell behind. language: the one that was found to be
    spoken; None where none was looked for. missed_s: end of the newest speech in which no word was understood, stream
    clock.
    """

    final: tuple[Word, ...]
    partial: tuple[Word, ...]
    skipped_s: float
    language: Language | None = None
    missed_s: float | None = None


@dataclass(slots=True)
class _Utterance:
    """A stretch of speech with the pauses inside it, growing until `closed`.

    frames: sound of 512 samples each. speaking: the decision on each. heard: frames that a hypothesis has covered.
    sureness: of the newest hypothesis, the mean probability of its words. understood: whether one was sure enough.
    withheld: final words that wait for one that is. told: whether any were reported.
    """

    start_s: float
    frames: list[NDArray[np.float32]]
    speaking: list[bool]
    heard: int = 0
    closed: bool = False
    agreement: LocalAgreement = field(default_factory=LocalAgreement)
    sureness: float = 0.0
    understood: bool = False
    told: bool = False
    withheld: list[Word] = field(default_factory=list)

    def time_of(self, frame: int) -> float:
        return self.start_s + frame * FRAME_S

    @property
    def speech_end(self) -> int:
        """Frame after the last one with speech."""
        return max((i + 1 for i, speaking in enumerate(self.speaking) if speaking), default=0)

    def drop(self, count: int) -> None:
        """Let go of the oldest frames."""
        del self.frames[:count], self.speaking[:count]
        self.start_s += count * FRAME_S
        self.heard -= count
        self.agreement.forget(self.start_s)


class StreamingTranscript:
    """A state machine without threads or clocks: `push` sound, call `step` until it returns None, at last `finish`.

    `step` recognises when `step_s` of sound with speech in it are new, and when an utterance has ended. What it says
    depends on these and on the sound alone as long as it is called at least once for every 3 s of sound; called less
    often, it leaves out hypotheses, and after 15 s it skips sound.
    """

    def __init__(self, speech: SpeechModel) -> None:
        self.speech = speech
        self._activity = VoiceActivity()
        self._timeline = SampleTimeline()
        self._rest = np.zeros(0, np.float32)  # samples short of a frame
        self._framed = 0  # frames of the stream so far
        self._lead: deque[NDArray[np.float32]] = deque(maxlen=_LEAD)
        self._utterances: deque[_Utterance] = deque()
        self._unreported: list[Word] = []
        self._skipped_s = 0.0
        self._language = speech.spoken()
        self._sure = _SURE
        self._spoken: Language | None = None  # the language of the words so far
        self._missed_s: float | None = None

    def push(self, block: AudioBlock) -> None:
        """Take in sound. Recognises nothing; costs about 2 ms a second of sound."""
        if self._timeline.append(len(block.samples), block.captured_s):
            self._close()
            self._activity.reset()
            self._rest, self._framed = np.zeros(0, np.float32), 0
            self._lead.clear()
        signal = np.concatenate([self._rest, block.samples])
        speaking = self._activity.push(block.samples)
        for frame, spoken in zip(signal[: len(speaking) * VOICE_FRAME].reshape(-1, VOICE_FRAME), speaking, strict=True):
            self._take(frame, bool(spoken))
        self._rest = signal[len(speaking) * VOICE_FRAME :]
        while sum(len(utterance.frames) for utterance in self._utterances) > _BUFFER:
            self._skip_ahead()

    def due(self, step_s: float = WORDS_S) -> bool:
        """Returns whether `step` has something to do."""
        if not self._utterances:
            return bool(self._unreported)
        utterance = self._utterances[0]
        return bool(self._unreported) or utterance.closed or utterance.heard + _frames(step_s) <= len(utterance.frames)

    def step(self, step_s: float = WORDS_S) -> TranscriptUpdate | None:
        """Recognise once if it is time to; None when nothing is due."""
        step = _frames(step_s)
        while self._utterances:
            utterance = self._utterances[0]
            ahead = utterance.heard + step
            if utterance.closed and ahead >= len(utterance.frames):
                self._conclude(utterance)
                self._utterances.popleft()
                return self._update(())
            if ahead > len(utterance.frames):
                break
            if len(utterance.frames) - ahead > _CATCH_UP:
                ahead += (len(utterance.frames) - ahead) // step * step
            new_speech = any(utterance.speaking[utterance.heard : ahead])
            utterance.heard = ahead
            if new_speech and sum(utterance.speaking[:ahead]) >= _LEAST_SPEECH:
                self._recognise(utterance, ahead)
                self._note_missed(utterance, ahead, _LONG)
                self._trim(utterance, step)
                return self._update(tuple(utterance.agreement.partial) if utterance.understood else ())
        return self._update(()) if self._unreported else None

    def finish(self) -> TranscriptUpdate:
        """Make final what is left: the stream has ended."""
        self._close()
        final: list[Word] = []
        while update := self.step():
            final.extend(update.final)
        return TranscriptUpdate(tuple(final), (), self._skipped_s, self._spoken, self._missed_s)

    def _take(self, frame: NDArray[np.float32], speaking: bool) -> None:
        self._framed += 1
        current = self._utterances[-1] if self._utterances and not self._utterances[-1].closed else None
        if current is not None:
            current.frames.append(frame)
            current.speaking.append(speaking)
            if not any(current.speaking[-_PAUSE:]):
                current.closed = True
        elif speaking:
            frames = [*self._lead, frame]
            start_s = self._timeline.time_of((self._framed - len(frames)) * VOICE_FRAME)
            self._utterances.append(_Utterance(start_s, frames, [False] * len(self._lead) + [True]))
        self._lead.append(frame)

    def _close(self) -> None:
        if self._utterances:
            self._utterances[-1].closed = True

    def _recognise(self, utterance: _Utterance, end: int) -> None:
        sound = np.concatenate(utterance.frames[:end])
        hypothesis = self.speech.transcribe(sound, utterance.start_s, self._language)
        if hypothesis:
            ease = _EASE if self.speech.multilingual else 0.0
            utterance.sureness = ease + sum(word.probability for word in hypothesis) / len(hypothesis)
            utterance.understood = utterance.understood or utterance.sureness >= self._sure
        self._accept(utterance, utterance.agreement.update(hypothesis))

    def _accept(self, utterance: _Utterance, words: tuple[Word, ...]) -> None:
        """Report words that are final, once the utterance is understood."""
        utterance.withheld.extend(words)
        if utterance.understood and utterance.withheld:
            utterance.told = True
            self._spoken = self._language.found if self.speech.multilingual else None
            self._unreported.extend(utterance.withheld)
            utterance.withheld.clear()

    def _conclude(self, utterance: _Utterance) -> None:
        """Let the last hypothesis of an utterance stand: it has ended."""
        end = min(utterance.speech_end + _TAIL, len(utterance.frames))
        if utterance.heard < end and sum(utterance.speaking) >= _LEAST_SPEECH:
            self._recognise(utterance, end)
        self._accept(utterance, utterance.agreement.settle())
        self._language.utterance_ended()
        self._note_missed(utterance, end, _MISSED)
        if utterance.told and utterance.sureness >= _CLEAR:
            self._sure = _SURE_AFTER_CLEAR

    def _note_missed(self, utterance: _Utterance, end: int, least: int) -> None:
        """Note that somebody spoke for at least so many frames, up to `end`, and no word was understood."""
        told = utterance.told or (utterance.understood and utterance.agreement.partial)
        if not told and sum(utterance.speaking[:end]) >= least:
            self._missed_s = utterance.time_of(end)
            self._sure = _SURE_AFTER_MISSED

    def _trim(self, utterance: _Utterance, step: int) -> None:
        """Keep a long utterance short: let go of sound up to a pause between final words."""
        if utterance.heard <= _TRIM:
            return
        agreement = utterance.agreement
        full = utterance.heard + step + _CATCH_UP > _BUFFER
        if full:
            self._accept(utterance, agreement.settle(utterance.time_of(utterance.heard) - _FORCED_S))
        following = [*agreement.final[1:], *agreement.partial[:1]]
        pauses = [
            (before.text[-1] in ".?!", (before.end_s + after.start_s) / 2)
            for before, after in zip(agreement.final, following, strict=False)
        ]
        if pauses:
            sentence_ends = [time_s for ends_sentence, time_s in pauses if ends_sentence]
            cut_s = sentence_ends[-1] if sentence_ends else pauses[-1][1]
            utterance.drop(int((cut_s - utterance.start_s) / FRAME_S))
        elif full or not agreement.partial:
            utterance.drop(utterance.heard - _KEPT)  # nothing was understood in all that sound

    def _skip_ahead(self) -> None:
        """Give up the oldest utterance, or all but the newest seconds of the only one; what was heard of it stands."""
        oldest = self._utterances[0]
        if len(self._utterances) == 1:
            cut = len(oldest.frames) - _KEPT
            self._utterances.append(
                _Utterance(oldest.time_of(cut), oldest.frames[cut:], oldest.speaking[cut:], closed=oldest.closed)
            )
            del oldest.frames[cut:], oldest.speaking[cut:]
        self._accept(oldest, oldest.agreement.settle())
        self._skipped_s += max(0, len(oldest.frames) - oldest.heard) * FRAME_S
        self._utterances.popleft()

    def _update(self, partial: tuple[Word, ...]) -> TranscriptUpdate:
        final, self._unreported = tuple(self._unreported), []
        return TranscriptUpdate(final, partial, self._skipped_s, self._spoken, self._missed_s)
