"""What is drawn in a terminal of a given size."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from dhmd.labels import EMOTIONS
from realtime.messages.estimate import (
    Dropped,
    Estimate,
    ExtraClasses,
    ExtraNumber,
    Graph,
    Latency,
    Modalities,
    ModalityEstimate,
    ModelName,
    SentimentEstimate,
    SpokenLanguage,
)
from realtime.perception.people import PeopleInView, PersonInView
from realtime.perception.speaking import Turn
from realtime.terminal.view import Dashboard, describe_line
from realtime.workers import WorkerState, WorkerStatus


def shown(t: float, top: Any, probability: float = 0.88, words: str = "") -> Estimate:
    rest = (1 - probability) / 6
    part = ModalityEstimate(
        present=True,
        age_s=0.2,
        weight=0.4,
        sentiment=1.0,
        influence=0.31,
        emotions={name: probability if name == top else rest for name in EMOTIONS},
    )
    absent = ModalityEstimate(present=False, age_s=None, weight=0.0, sentiment=None, late=top is None)
    there = absent if top is None else part
    return Estimate(
        stream="desk",
        seq=0,
        t=t,
        window=(t - 5, t),
        sentiment=SentimentEstimate(value=1.2, low=-0.4, high=2.8) if top else None,
        emotions={name: probability if name == top else rest for name in EMOTIONS} if top else None,
        top=top,
        valence=0.5 if top else None,
        arousal=0.25 if top else None,
        modalities=Modalities(vision=there, audio=there, text=absent),
        graph=Graph(homo={}, hetero={}),
        faces=1,
        transcript=words,
        latency_ms=Latency(capture_to_estimate=40, inference=5),
        dropped=Dropped(video=0, audio=0),
        model=ModelName(name="base", checkpoint=""),
    )


def drawn(dashboard: Dashboard, estimate: Estimate | None, width: int, height: int) -> list[str]:
    console = Console(
        record=True, file=io.StringIO(), force_terminal=True, width=width, height=height, color_system="truecolor"
    )
    console.print(dashboard.render(estimate))
    return console.export_text().splitlines()


def a_minute() -> tuple[Dashboard, Estimate]:
    """A stream that was sad for half a minute, then unseen for ten seconds, then happy."""
    dashboard = Dashboard("dhmd-live · desk", "mqtt://127.0.0.1:1883")
    dashboard.set_connection("connected")
    for i in range(601):
        top = "sad" if i < 300 else None if i < 400 else "happy"
        estimate = shown(1_700_000_000 + i / 10, top, words="word " * 60 + "the end.")
        dashboard.arrived(estimate)
    return dashboard, estimate


@pytest.mark.parametrize("size", [(80, 24), (92, 30), (120, 40), (200, 60)])
def test_everything_fits_from_80x24_on_and_uses_the_room(size: tuple[int, int]) -> None:
    width, height = size
    dashboard, estimate = a_minute()
    lines = drawn(dashboard, estimate, width, height)
    assert len(lines) < height
    assert {len(line) for line in lines} == {min(width, 160)}
    text = "\n".join(lines)
    assert re.search(r"│ happy 88%   valence \+0\.50   arousal \+0\.25 ", text)
    for name in EMOTIONS:
        assert re.search(rf"│ +{name} [━╸╺]+ +\d\.\d\d │", text)
    assert re.search(r"face +● present +happy 88% +31% +\+1\.00 +0\.20 s", text)
    assert re.search(r"words +○ absent", text)
    assert "the end.”" in text
    assert "Ctrl-C stops · mqtt://127.0.0.1:1883 connected" in text
    assert sum(bool(re.search(r"[▁-█]{8}", line)) for line in lines) >= (1 if height == 24 else 4)
    assert any(not line.strip("│ ") for line in lines) == (height > 24)


def test_the_last_minute_is_drawn_to_scale_with_its_gap() -> None:
    dashboard, estimate = a_minute()
    (line,) = (line for line in drawn(dashboard, estimate, 80, 24) if "last min" in line)
    bar = line.removeprefix("│  last min ").removesuffix(" │")
    blocks = re.fullmatch(r"([▁-█]+)( +)([▁-█]+)", bar)
    assert blocks, bar
    sad, gap, happy = (len(part) for part in blocks.groups())
    assert sad == pytest.approx(len(bar) / 2, abs=1)
    assert gap == pytest.approx(len(bar) / 6, abs=1)
    assert happy == pytest.approx(len(bar) / 3, abs=1)
    names = next(line for line in drawn(dashboard, estimate, 80, 24) if re.search(r"│ +sad +happy +│", line))
    assert names.index("sad") == line.index(bar)


def test_trouble_and_marks_are_told_before_the_rest_gives_way() -> None:
    dashboard, estimate = a_minute()
    dashboard.marks = "m mark · 1 happy\nmarked 3.0 to 8.0 s"
    for worker in ("face", "voice", "transcript"):
        dashboard.set_worker(WorkerStatus(worker, WorkerState.BEHIND, "1.1 s behind; the machine is busy"))
    lines = drawn(dashboard, estimate, 80, 24)
    assert len(lines) < 24
    text = "\n".join(lines)
    assert "transcript behind: 1.1 s behind" in text
    assert "marked 3.0 to 8.0 s" in text
    assert "Ctrl-C stops" in text
    assert "happy 88%" in text


def test_a_small_terminal_has_the_headline_and_how_to_stop() -> None:
    dashboard, estimate = a_minute()
    lines = drawn(dashboard, estimate, 50, 10)
    assert len(lines) < 10
    assert "happy 88%" in "\n".join(lines)
    assert "Ctrl-C stops" in "\n".join(lines)


def test_a_machine_that_is_behind_is_not_told_as_an_empty_room() -> None:
    dashboard = Dashboard("dhmd-live · desk", "no broker")
    text = "\n".join(drawn(dashboard, shown(0.0, None), 80, 24))
    assert "this machine is behind: face and voice and words too late" in text
    assert "nobody" not in text


def test_the_language_is_told_and_whether_it_is_read() -> None:
    dashboard = Dashboard("dhmd-live · desk", "no broker")
    happy = shown(0.0, "happy", words="Wir haben gewonnen")
    told = happy.model_copy(update={"language": SpokenLanguage(code="de", probability=0.98)})
    assert "de · “Wir haben gewonnen”" in "\n".join(drawn(dashboard, told, 80, 24))
    unread = happy.modalities.text.model_copy(update={"unread": True})
    told = told.model_copy(update={"modalities": happy.modalities.model_copy(update={"text": unread})})
    text = "\n".join(drawn(dashboard, told, 80, 24))
    assert "de · not read: no language that this model was tested in · …" in text
    assert re.search(r"words +○ not read", text)
    assert describe_line(told).endswith(
        '"Wir haben gewonnen"  (de, not read: no language that this model was tested in)'
    )
    hidden = happy.modalities.vision.model_copy(update={"covered": True})
    covered = happy.model_copy(update={"modalities": happy.modalities.model_copy(update={"vision": hidden})})
    assert re.search(r"face +◐ covered", "\n".join(drawn(dashboard, covered, 80, 24)))
    at_once = happy.model_copy(update={"overlapped": True})
    assert describe_line(at_once).endswith('"Wir haben gewonnen"  (several speak at once)')
    silent = told.model_copy(update={"transcript": "", "language": None})
    assert "speech heard, not understood" in "\n".join(drawn(dashboard, silent, 80, 24))


def test_nothing_is_drawn_of_an_earlier_run() -> None:
    dashboard, _ = a_minute()
    begun_again = shown(5.0, "fear")
    dashboard.arrived(begun_again)
    text = "\n".join(drawn(dashboard, begun_again, 80, 24))
    assert not re.search(r"│ +sad +happy +│", text)


def test_heads_of_ones_own_have_a_line() -> None:
    extra = {
        "mood": ExtraClasses(top="bored", probabilities={"engaged": 0.25, "bored": 0.75}),
        "self_rating": ExtraNumber(value=3.5, low=2.5, high=4.5, range=(1, 5), unit="points"),
    }
    estimate = shown(1_700_000_000, "happy", words="well").model_copy(update={"extra": extra})
    lines = drawn(Dashboard("dhmd-live · desk", "none"), estimate, 80, 24)
    assert any("also mood bored 0.75 · self rating 3.50 points" in line for line in lines)
    assert len(lines) <= 24
    assert '  mood bored 0.75  self rating 3.50 points  "well"' in describe_line(estimate)


def test_each_of_several_people_has_a_line() -> None:
    dashboard, estimate = a_minute()
    two = tuple(PersonInView(number, 0.0, (0.0, 0.0, 0.1, 0.1)) for number in (1, 2))
    dashboard.set_people(PeopleInView(60.0, two, Turn(58.0, 60.0, 2)))
    for number, top in ((1, "sad"), (2, "happy")):
        dashboard.person_arrived(shown(1_700_000_060, top).model_copy(update={"person": number}))
    lines = drawn(dashboard, estimate, 80, 24)
    assert len(lines) <= 24
    one, other = (next(line for line in lines if f"person {number}" in line) for number in (1, 2))
    assert "sad 88%" in one
    assert "speaks" not in one
    assert other.split("│")[1].split() == ["person", "2", "happy", "88%", "face,", "voice", "speaks"]
    dashboard.set_people(PeopleInView(62.0, two, Turn(60.0, 62.0, None)))
    assert "speech from outside the picture" in "\n".join(drawn(dashboard, estimate, 80, 24))
    dashboard.set_people(PeopleInView(63.0, two[:1]))
    assert "person 1" not in "\n".join(drawn(dashboard, estimate, 80, 24)), "of one person there is no choice"
