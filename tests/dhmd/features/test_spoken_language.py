from __future__ import annotations

from dhmd.contract import Language
from dhmd.features.spoken_language import SpokenLanguage


def utterance(spoken: SpokenLanguage, seconds: float, **probabilities: float) -> str:
    """One that is asked about as it grows; returns the language at its end."""
    for heard_s in (0.6, 1.3, seconds):
        if spoken.asks(heard_s):
            spoken.heard(probabilities, heard_s)
    spoken.utterance_ended()
    assert spoken.found is not None
    return spoken.found.code


def test_it_is_found_in_the_first_seconds() -> None:
    spoken = SpokenLanguage()
    assert spoken.found is None
    assert spoken.asks(0.6)
    spoken.heard({"de": 0.55, "nl": 0.3, "en": 0.15}, 0.6)
    assert spoken.found is not None
    assert spoken.found.code == "de"
    assert utterance(spoken, 3.0, de=0.95, nl=0.03) == "de"
    assert spoken.found.probability > 0.9


def test_one_utterance_that_sounds_like_another_does_not_change_it() -> None:
    spoken = SpokenLanguage()
    assert utterance(spoken, 3.0, es=0.9, it=0.1) == "es"
    assert utterance(spoken, 3.0, th=0.88, es=0.05) == "es"
    assert utterance(spoken, 3.0, es=0.7, pt=0.2) == "es"
    assert utterance(spoken, 1.2, en=0.9, es=0.1) == "es"


def test_a_guess_at_the_start_is_corrected() -> None:
    spoken = SpokenLanguage()
    assert utterance(spoken, 0.8, en=0.4, de=0.3) == "en"
    assert utterance(spoken, 3.0, de=0.95) == "de"


def test_it_follows_who_goes_on_in_another() -> None:
    spoken = SpokenLanguage()
    for _ in range(20):
        utterance(spoken, 5.0, en=0.99)
    followed = [utterance(spoken, 5.0, fr=0.97, en=0.02) for _ in range(3)]
    assert followed[0] == "en"
    assert followed[-1] == "fr"


def test_it_is_asked_no_more_of_an_utterance_than_it_takes() -> None:
    spoken = SpokenLanguage()
    spoken.heard({"it": 0.9}, 3.2)
    assert not spoken.asks(4.0)
    spoken.utterance_ended()
    assert not spoken.asks(0.5)  # too short to tell, and one is known
    assert spoken.asks(1.5)


def test_a_language_that_is_given_stays() -> None:
    spoken = SpokenLanguage("pl")
    assert not spoken.asks(5.0)
    assert spoken.found == Language("pl", 1.0)
