"""LocalAgreement-2 on hypotheses made by hand."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dhmd.contract import Word
from realtime.perception.agreement import LocalAgreement


def said(text: str, start_s: float = 0.0) -> list[Word]:
    return [Word(word, start_s + i, start_s + i + 0.9) for i, word in enumerate(text.split())]


def texts(words: tuple[Word, ...] | list[Word]) -> str:
    return " ".join(word.text for word in words)


def test_words_that_two_hypotheses_share_are_final() -> None:
    agreement = LocalAgreement()
    assert agreement.update(said("the cat")) == ()
    assert texts(agreement.update(said("the cat sat on"))) == "the cat"
    assert texts(agreement.partial) == "sat on"
    assert texts(agreement.update(said("the cat sat up and"))) == "sat"
    assert texts(agreement.partial) == "up and"


def test_case_and_punctuation_do_not_matter_and_the_newer_spelling_stands() -> None:
    agreement = LocalAgreement()
    agreement.update(said("wait what."))
    assert texts(agreement.update(said("Wait, what was"))) == "Wait, what"


def test_a_changed_mind_about_final_words_changes_nothing() -> None:
    agreement = LocalAgreement()
    agreement.update(said("my dog died"))
    agreement.update(said("my dog died"))
    assert texts(agreement.final) == "my dog died"
    assert agreement.update(said("my dark dyed last night")) == ()
    assert texts(agreement.partial) == "last night"
    assert texts(agreement.update(said("oh my dark dyed last night", start_s=-1.0))) == "last night"
    assert texts(agreement.final) == "my dog died last night"


def test_settling_takes_the_newest_hypothesis_up_to_a_time() -> None:
    agreement = LocalAgreement()
    agreement.update(said("one two three four"))
    assert texts(agreement.settle(until_s=2.0)) == "one two"
    assert texts(agreement.settle()) == "three four"
    assert agreement.partial == []


def test_forgotten_words_are_not_looked_for() -> None:
    agreement = LocalAgreement()
    agreement.update(said("one two three"))
    agreement.update(said("one two three"))
    agreement.forget(1.95)
    assert texts(agreement.final) == "three"
    assert agreement.update(said("three four", start_s=2.0)) == ()
    assert texts(agreement.partial) == "four"


@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=8), max_size=12))
def test_final_words_are_never_taken_back_and_their_times_never_run_backwards(hypotheses: list[list[str]]) -> None:
    agreement, reported = LocalAgreement(), []
    for hypothesis in hypotheses:
        reported += agreement.update(said(" ".join(hypothesis)))
        assert agreement.final == reported
    reported += agreement.settle()
    assert agreement.final == reported
    times = [t for word in reported for t in (word.start_s, word.end_s)]
    assert times == sorted(times)
