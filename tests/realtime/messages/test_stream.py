"""What is published beside the estimate: sizes, documentation and models agree."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from dhmd.contract import Word
from dhmd.labels import EMOTIONS
from realtime.messages.estimate import (
    Dropped,
    EmotionName,
    Estimate,
    Graph,
    Latency,
    Modalities,
    ModalityEstimate,
    ModelName,
    SentimentEstimate,
)
from realtime.messages.stream import COMPACT_LIMIT, AnyEvent, Compact, Event, Transcript
from realtime.messages.topics import COMMANDS, PEOPLE, PERSON, RESPONSE, TOPICS, Topic
from realtime.mqtt.stream import transcript_of
from realtime.perception.transcript import TranscriptUpdate
from realtime.programs import asyncapi

DOCS = Path(__file__).parents[3] / "docs"

unit = st.floats(-1, 1)


@st.composite
def estimates(draw: st.DrawFn) -> Estimate:
    """Any estimate, at least as long-winded as a real one."""
    perceived = draw(st.booleans())
    shares = draw(st.lists(st.floats(0, 1), min_size=7, max_size=7))
    emotions: dict[EmotionName, float] = dict(zip(get_args(EmotionName), shares, strict=True))
    part = st.builds(ModalityEstimate, present=st.booleans(), age_s=st.none(), weight=st.just(0.0), sentiment=st.none())
    value = draw(st.floats(-3, 3))
    return Estimate(
        stream="x" * 64,
        seq=draw(st.integers(0, 10**12)),
        t=draw(st.floats(0, 1e11)),
        window=(0.0, 5.0),
        sentiment=SentimentEstimate(value=value, low=value, high=value) if perceived else None,
        emotions=emotions if perceived else None,
        top=max(emotions, key=lambda name: emotions[name]) if perceived else None,
        valence=draw(unit) if perceived else None,
        arousal=draw(unit) if perceived else None,
        modalities=Modalities(vision=draw(part), audio=draw(part), text=draw(part)),
        graph=Graph(homo={}, hetero={}),
        faces=1,
        transcript="",
        latency_ms=Latency(capture_to_estimate=None, inference=None),
        dropped=Dropped(video=0, audio=0),
        model=ModelName(name="base", checkpoint="0123456789ab"),
    )


@given(estimates())
def test_a_compact_estimate_is_small_valid_and_says_the_same(estimate: Estimate) -> None:
    payload = Compact.of(estimate).model_dump_json()
    assert len(payload.encode()) <= COMPACT_LIMIT
    compact = Compact.model_validate_json(payload)
    assert (compact.n, compact.e) == (estimate.seq, estimate.top)
    assert compact.t == pytest.approx(estimate.t, abs=0.006)
    parts = estimate.modalities
    present = {"f": parts.vision.present, "v": parts.audio.present, "w": parts.text.present}
    assert {letter: letter in compact.m for letter in "fvw"} == present
    if estimate.emotions is None or estimate.sentiment is None:
        assert (compact.p, compact.q, compact.s, compact.va, compact.ar) == (None, (), None, None, None)
        return
    assert compact.p == pytest.approx(max(estimate.emotions.values()), abs=6e-4)
    assert [q / 100 for q in compact.q] == pytest.approx([estimate.emotions[name] for name in EMOTIONS], abs=6e-3)
    assert compact.s == pytest.approx(estimate.sentiment.value, abs=6e-3)
    assert (compact.va, compact.ar) == pytest.approx((estimate.valence, estimate.arousal), abs=6e-3)


def test_a_transcript_tells_final_words_and_partial_ones_with_unix_times() -> None:
    update = TranscriptUpdate((Word("What", 1.0, 1.2), Word("wonderful", 1.2, 1.8)), (Word("news", 1.8, 2.0),), 0.5)
    transcript = Transcript.model_validate_json(transcript_of(update, lambda t_s: 1000 + t_s).model_dump_json())
    assert (transcript.final, transcript.partial, transcript.skipped_s) == ("What wonderful", "news", 0.5)
    told = [(word.text, word.start, word.end, word.final) for word in transcript.words]
    assert told == [
        ("What", 1001.0, 1001.2, True),
        ("wonderful", 1001.2, 1001.8, True),
        ("news", 1001.8, 1002.0, False),
    ]


def named(topic: Topic) -> str:
    """The topic as the manual writes it."""
    return "dhmd/STREAM/" + re.sub(r"{(\w+)}", lambda level: level[1].upper(), topic.levels)


def section(topic: Topic) -> str:
    manual = (DOCS / "mqtt.md").read_text()
    heading = f"\n## `{named(topic)}`\n"
    assert heading in manual
    return manual.split(heading)[1].split("\n## ")[0]


def examples(topic: Topic) -> list[str]:
    """What the manual shows of a topic."""
    language = "json" if topic.content_type == "application/json" else "text"
    return re.findall(rf"```{language}\n(.*?)\n```", section(topic), flags=re.DOTALL)


def written(topic: Topic, example: str) -> Any:
    return json.loads(example) if topic.content_type == "application/json" else example


@pytest.mark.parametrize("topic", [*TOPICS, PERSON, PEOPLE, RESPONSE], ids=lambda topic: topic.name)
def test_each_topic_has_examples_in_the_manual_that_are_valid_and_whole(topic: Topic) -> None:
    assert examples(topic)
    for example in examples(topic):
        read: BaseModel = topic.payload.model_validate(written(topic, example))
        assert read.model_dump(mode="json") == written(topic, example)


@pytest.mark.parametrize("topic", COMMANDS.values(), ids=lambda topic: topic.name)
def test_each_command_has_examples_in_the_manual_that_are_valid(topic: Topic) -> None:
    assert examples(topic)
    for example in examples(topic):
        topic.payload.model_validate_json(example)


def test_the_manual_shows_each_kind_of_event() -> None:
    event = next(topic for topic in TOPICS if topic.payload is Event)
    kinds = {kind.model_fields["event"].default for kind in get_args(AnyEvent)}
    assert {json.loads(example)["event"] for example in examples(event)} == kinds
    assert all(f"`{kind}`" in section(event) for kind in kinds)


@pytest.mark.parametrize("topic", [*TOPICS, PERSON, PEOPLE, RESPONSE], ids=lambda topic: topic.name)
def test_the_table_of_the_manual_says_how_each_topic_is_delivered(topic: Topic) -> None:
    name = named(topic).removeprefix("dhmd/STREAM/")
    row = next(line for line in (DOCS / "mqtt.md").read_text().splitlines() if line.startswith(f"| `{name}` | "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    expires = "never" if topic.expiry_s is None else f"{topic.expiry_s} s"
    assert cells[2:] == [str(topic.qos), "yes" if topic.retain else "no", expires, topic.why]


def test_the_asyncapi_document_is_that_of_the_models() -> None:
    """Otherwise: python -m realtime.programs.asyncapi > docs/asyncapi.yaml."""
    assert (DOCS / "asyncapi.yaml").read_text() == asyncapi.text()


def test_the_manual_names_all_topics_of_the_asyncapi_document() -> None:
    manual = (DOCS / "mqtt.md").read_text()
    addresses = [channel["address"] for channel in asyncapi.document()["channels"].values()]
    assert len(set(addresses)) == len(addresses)
    for address in addresses:
        name = address.format(
            prefix="homeassistant",
            device="dhmd_hall",
            **{level: level.upper() for level in ("stream", "worker", "value", "server", "id")},
        )
        assert re.search(rf"`(dhmd/STREAM/)?{re.escape(name.removeprefix('dhmd/STREAM/'))}`", manual), name


def test_all_references_in_the_asyncapi_document_lead_somewhere() -> None:
    document = asyncapi.document()

    def follow(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(where := part.get("$ref"), str):
                there = document
                for key in where.removeprefix("#/").split("/"):
                    there = there[key]
            for value in part.values():
                follow(value)
        elif isinstance(part, list):
            for value in part:
                follow(value)

    follow(document)
