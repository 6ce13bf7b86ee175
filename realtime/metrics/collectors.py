"""Figures that Prometheus reads of a process: those that its parts keep anyway, as they stand when it asks.

Nothing is counted here. Collectors read, in the thread of the request. Loaded only where they are asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from realtime.messages.estimate import Dropped
from realtime.percentiles import percentiles
from realtime.pipeline.pipeline import Statistics
from realtime.workers import WorkerState, WorkerStatus

QUANTILES: Final = (0.5, 0.95, 0.99)
NEWEST: Final = 600
"""Latencies that the quantiles are of: a minute at ten estimates a second."""


class Connection(Protocol):
    """A publisher, as far as it is counted here."""

    undelivered: int
    connected: bool


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """Places where the figures of a stream are found. publisher: None where there is no broker."""

    stream: str
    statistics: Statistics
    dropped: Callable[[], Dropped]
    workers: Mapping[str, WorkerStatus]
    publisher: Connection | None


class StreamCollector(Collector):
    """streams: those that there are at the moment."""

    def __init__(self, streams: Callable[[], Iterable[StreamFigures]]) -> None:
        self._streams = streams

    def collect(self) -> Iterator[Metric]:
        estimates = CounterMetricFamily("dhmd_estimates", "Estimates.", labels=["stream"])
        missed = CounterMetricFamily("dhmd_missed_ticks", "Estimates that were due and left out.", labels=["stream"])
        frames = CounterMetricFamily(
            "dhmd_dropped_frames", "Pictures that were due, and overtaken by newer ones.", labels=["stream"]
        )
        blocks = CounterMetricFamily(
            "dhmd_dropped_blocks", "Blocks of sound that overflowed or were overtaken.", labels=["stream"]
        )
        undelivered = CounterMetricFamily(
            "dhmd_undelivered_estimates", "Estimates that found no broker.", labels=["stream"]
        )
        connected = GaugeMetricFamily("dhmd_broker_connected", "1 while the broker is there.", labels=["stream"])
        states = GaugeMetricFamily(
            "dhmd_worker_state", "1 for the state that a worker is in.", labels=["stream", "worker", "state"]
        )
        restarts = CounterMetricFamily(
            "dhmd_worker_restarts", "How often a worker was started again.", labels=["stream", "worker"]
        )
        in_view = GaugeMetricFamily("dhmd_people", "People in view, where several are followed.", labels=["stream"])
        of_people = CounterMetricFamily(
            "dhmd_person_estimates", "Estimates of people, by how many were in view.", labels=["stream", "people"]
        )
        streams = tuple(self._streams())
        for one in streams:
            label, dropped = [one.stream], one.dropped()
            estimates.add_metric(label, one.statistics.estimates)
            missed.add_metric(label, one.statistics.missed_ticks)
            frames.add_metric(label, dropped.video)
            blocks.add_metric(label, dropped.audio)
            for people, made in sorted(dict(one.statistics.of_people).items()):
                of_people.add_metric([*label, str(people)], made)
            if one.statistics.people is not None:
                in_view.add_metric(label, one.statistics.people)
            if one.publisher is not None:
                undelivered.add_metric(label, one.publisher.undelivered)
                connected.add_metric(label, one.publisher.connected)
            for worker, status in dict(one.workers).items():
                restarts.add_metric([*label, worker], status.restarts)
                for state in WorkerState:
                    states.add_metric([*label, worker, state.value], status.state is state)
        yield from (estimates, missed, frames, blocks, undelivered, connected, in_view, of_people, states, restarts)
        for name, what in (
            ("capture_to_estimate", "From capture to estimate."),
            ("capture_to_published", "From capture to the network."),
            ("inference", "What the model takes."),
        ):
            latencies = [({"stream": one.stream}, getattr(one.statistics, f"{name}_ms")) for one in streams]
            yield summary(f"dhmd_{name}_seconds", what, latencies)


def counter(name: str, what: str, count: float, **labels: str) -> CounterMetricFamily:
    family = CounterMetricFamily(name, what, labels=list(labels))
    family.add_metric(list(labels.values()), count)
    return family


def summary(name: str, what: str, latencies: Iterable[tuple[dict[str, str], deque[float]]]) -> SummaryMetricFamily:
    """latencies: with their labels, in milliseconds. Quantiles alone: nobody keeps sum and count since the start."""
    family = SummaryMetricFamily(name, f"{what} Of the newest {NEWEST}.")
    for labels, values_ms in latencies:
        # Copied at once: others go on writing.
        newest_ms = list(values_ms)[-NEWEST:]
        if measured := percentiles(newest_ms):
            for quantile, value_ms in zip(QUANTILES, measured, strict=True):
                family.add_sample(name, {**labels, "quantile": f"{quantile:g}"}, value_ms / 1000)
    return family
