"""All topics of a run as another client receives them, each message checked against its model."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from realtime.clock import StreamClock
from realtime.demo import CLIP
from realtime.messages.stream import COMPACT_LIMIT, Event, FaceAppeared, SpeechBegan
from realtime.messages.topics import (
    CLAIM,
    COMPACT,
    EMOTION,
    EVENT,
    METRICS,
    STATE,
    STATUS,
    TOPICS,
    TRANSCRIPT,
    WORKER,
    Topic,
)
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.publisher import Publisher
from realtime.mqtt.stream import PublisherSink
from realtime.pipeline.pipeline import Statistics


def of(listener: Any, topic: Topic, stream: str) -> list[tuple[str, bytes, bool]]:
    """What came on a topic: (name, payload, retained)."""
    pattern = re.compile(f"dhmd/{stream}/" + re.sub(r"{\w+}", "[^/]+", topic.levels))
    return [received for received in list(listener.received) if pattern.fullmatch(received[0])]


def payloads(listener: Any, topic: Topic, stream: str) -> list[Any]:
    read = json.loads if topic.content_type == "application/json" else bytes.decode
    return [read(payload) for _, payload, _ in of(listener, topic, stream)]


def test_a_run_publishes_all_its_topics(
    mosquitto: Any, subscribe: Callable[..., Any], start_live: Callable[..., Any], untrained_checkpoint: Path
) -> None:
    listener = subscribe(mosquitto.port)

    def transcripts() -> list[Any]:
        return payloads(listener, TRANSCRIPT, "hall")

    command = start_live(
        "run", "--source", str(CLIP), "--broker", mosquitto.url, "--stream", "hall", "--state",
        "--checkpoint", str(untrained_checkpoint),
    )  # fmt: skip
    command.wait_for(lambda: of(listener, METRICS, "hall") and any(m["final"] for m in transcripts()))
    command.wait_for(lambda: len(of(listener, EVENT, "hall")) >= 3)
    late = subscribe(mosquitto.port)
    late.wait_for(lambda: of(late, STATE, "hall"))
    command.interrupt()
    assert command.wait() == 0
    listener.wait_for(lambda: listener.statuses("hall")[-1:] == ["stopped"])

    for topic in TOPICS:
        received = of(listener, topic, "hall")
        assert received, topic.name
        for payload in payloads(listener, topic, "hall"):
            topic.payload.model_validate(payload)
    assert {received[0] for received in listener.received} == {
        received[0] for topic in (*TOPICS, CLAIM) for received in of(listener, topic, "hall")
    }
    # What is retained is there for who comes later, and nothing else.
    assert {retained for topic in (STATUS, WORKER, STATE) for _, _, retained in of(late, topic, "hall")} >= {True}
    assert not any(retained for topic in TOPICS if not topic.retain for _, _, retained in of(late, topic, "hall"))

    numbers = {estimate["seq"] for estimate in payloads(listener, EMOTION, "hall")}
    assert numbers == {compact["n"] for compact in payloads(listener, COMPACT, "hall")}
    assert max(len(payload) for _, payload, _ in of(listener, COMPACT, "hall")) <= COMPACT_LIMIT
    happened = [Event.model_validate(event).root for event in payloads(listener, EVENT, "hall")]
    assert {FaceAppeared, SpeechBegan} <= {type(event) for event in happened}
    said = " ".join(one["final"] for one in transcripts() if one["final"])
    assert "Hello" in said
    first = payloads(listener, EMOTION, "hall")[0]
    assert all(abs(event.t - first["t"]) < 60 for event in happened)
    metrics = payloads(listener, METRICS, "hall")[-1]
    assert metrics["estimates"] > 10
    assert metrics["latency_ms"]["capture_to_published"]["p50"] >= metrics["latency_ms"]["inference"]["p50"]
    assert metrics["memory_mb"] > 100
    values = {name.rsplit("/", 1)[1] for name, _, _ in of(listener, STATE, "hall")}
    shares = {"influence_face", "influence_voice", "influence_words"}
    kept = shares | {"emotion", "probability", "sentiment", "valence", "arousal", "face", "speech"}
    assert values == {*kept, "words"}
    # A stream that has stopped has no values.
    after = subscribe(mosquitto.port)
    after.wait_for(lambda: len(of(after, STATE, "hall")) == len(kept))
    assert set(payloads(after, STATE, "hall")) == {"None"}


@pytest.mark.anyio
async def test_metrics_are_of_the_time_since_the_last_report(monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = Statistics()
    publisher = Publisher(BrokerAddress("127.0.0.1", 1), "test", lambda _: None)
    sink = PublisherSink(publisher, StreamClock(), statistics)
    published: list[Any] = []
    monkeypatch.setattr(publisher, "publish", lambda topic, payload: published.append(json.loads(payload)))
    statistics.estimates, statistics.missed_ticks = 20, 2
    sink._inference_ms.extend(range(101))
    sink.report()
    statistics.estimates = 30
    await asyncio.sleep(0.1)  # periods are given in milliseconds
    sink.report()
    first, second = (METRICS.payload.model_validate(one) for one in published)
    assert first.latency_ms.inference.model_dump() == {"p50": 50, "p95": 95, "p99": 99}
    assert second.latency_ms.inference is None
    assert (first.estimates, second.estimates, second.missed_ticks) == (20, 30, 2)
    assert second.rate_hz == pytest.approx(10 / second.period_s, rel=0.1)
