"""What words are recognised with, and which of them are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from dhmd.features.speech import AUTO, DEFAULT_SPEECH


@dataclass(frozen=True, slots=True)
class Listening:
    """speech, language: see SpeechModel.

    untested_words: those of languages in which the checkpoint was not tested, too.
    """

    speech: str = DEFAULT_SPEECH
    language: str = AUTO
    untested_words: bool = False


BY_DEFAULT: Final = Listening()
