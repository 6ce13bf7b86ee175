"""What Prometheus reads of a process: the figures that its parts keep anyway, as they stand when it asks.

Nothing is counted here. Collectors read, in the thread of the request. Loaded only where they are asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from realtime.messages.estimate import Dropped
from realtime.mqtt import Publisher
from realtime.pipeline.pipeline import Statistics
from realtime.recognition.shared_engine import MOST
from realtime.workers import WorkerState, WorkerStatus

if TYPE_CHECKING:
    from realtime.programs.edge import EdgeLink
    from realtime.programs.serve import Server
    from realtime.scale.edge_stream import EdgeStatistics

QUANTILES: Final = (0.5, 0.95, 0.99)
NEWEST: Final = 600
"""Latencies that the quantiles are of: a minute at ten estimates a second."""
BATCH_SIZES: Final = tuple(2**power for power in range(MOST.bit_length()))


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """Where the figures of a stream are found. publisher: None where there is no broker."""

    stream: str
    statistics: Statistics
    dropped: Callable[[], Dropped]
    workers: Mapping[str, WorkerStatus]
    publisher: Publisher | None


class Streams(Collector):
    """streams: those that there are at the moment."""

    def __init__(self, streams: Callable[[], Iterable[StreamFigures]]) -> None:
        self._streams = streams

    def collect(self) -> Iterator[Metric]:
        estimates = CounterMetricFamily("dhmd_estimates", "Estimates.", labels=["stream"])
        missed = CounterMetricFamily("dhmd_missed_ticks", "Estimates that were due and left out.", labels=["stream"])
        frames = CounterMetricFamily("dhmd_dropped_frames", "Video frames overtaken by newer ones.", labels=["stream"])
        blocks = CounterMetricFamily("dhmd_dropped_blocks", "Blocks of sound that overflowed.", labels=["stream"])
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
        streams = tuple(self._streams())
        for one in streams:
            label, dropped = [one.stream], one.dropped()
            estimates.add_metric(label, one.statistics.estimates)
            missed.add_metric(label, one.statistics.missed_ticks)
            frames.add_metric(label, dropped.video)
            blocks.add_metric(label, dropped.audio)
            if one.publisher is not None:
                undelivered.add_metric(label, one.publisher.undelivered)
                connected.add_metric(label, one.publisher.connected)
            for worker, status in dict(one.workers).items():
                restarts.add_metric([*label, worker], status.restarts)
                for state in WorkerState:
                    states.add_metric([*label, worker, state.value], status.state is state)
        yield from (estimates, missed, frames, blocks, undelivered, connected, states, restarts)
        for name, what in (
            ("capture_to_estimate", "From capture to estimate."),
            ("capture_to_published", "From capture to the network."),
            ("inference", "What the model takes."),
        ):
            latencies = [({"stream": one.stream}, getattr(one.statistics, f"{name}_ms")) for one in streams]
            yield _summary(f"dhmd_{name}_seconds", what, latencies)


class Windows(Collector):
    """What becomes of the windows of an edge."""

    def __init__(self, stream: str, statistics: EdgeStatistics, link: EdgeLink) -> None:
        self._stream, self._statistics, self._link = stream, statistics, link

    def collect(self) -> Iterator[Metric]:
        windows = self._statistics
        for name, what, count in (
            ("sent", "Windows sent.", windows.sent),
            ("sent_full", "Windows sent with all rows.", windows.full),
            ("sent_bytes", "Bytes of windows sent.", windows.bytes),
            ("answered", "Windows whose estimate came.", windows.answered),
            ("withheld", "Windows that no server was there for.", windows.withheld),
            ("missed", "Windows that found no broker, or were overtaken.", self._link.missed),
        ):
            yield _count(f"dhmd_windows_{name}", what, count, stream=self._stream)
        round_trips = [({"stream": self._stream}, windows.round_trips_ms)]
        yield _summary("dhmd_window_round_trip_seconds", "From sending a window to its estimate.", round_trips)


class Serving(Collector):
    """What a server does."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def collect(self) -> Iterator[Metric]:
        statistics, streams = self._server.statistics, self._server.streams
        connected = GaugeMetricFamily("dhmd_broker_connected", "1 while the broker is there.")
        connected.add_metric([], self._server.joined.is_set())
        held = GaugeMetricFamily("dhmd_serve_streams", "Streams that are served.")
        held.add_metric([], len(streams))
        yield from (connected, held)
        for name, what, count in (
            ("estimates", "Estimates.", statistics.estimates),
            ("busy_seconds", "Time spent in batches.", statistics.busy_s),
            ("windows", "Windows taken in.", streams.counts["windows"]),
            ("overtaken_windows", "Windows that a newer one took the place of.", streams.counts["overtaken"]),
            ("gaps", "Windows that others are missing before.", streams.counts["gaps"]),
            ("refused_windows", "Windows of streams that are refused.", streams.counts["refused"]),
            ("malformed_messages", "Messages that are no windows.", streams.counts["malformed"]),
        ):
            yield _count(f"dhmd_serve_{name}", what, count)
        batches = sorted(dict(statistics.batches).items())
        buckets = [(f"{most:.1f}", sum(n for size, n in batches if size <= most)) for most in BATCH_SIZES]
        sizes = HistogramMetricFamily("dhmd_serve_batch_windows", "Windows of a batch.")
        every = sum(n for _, n in batches)
        sizes.add_metric([], [*buckets, ("+Inf", every)], sum(size * n for size, n in batches))
        yield sizes
        held_ms = statistics.held_ms
        yield _summary("dhmd_serve_held_seconds", "From the arrival of a window to its estimate.", [({}, held_ms)])


def _count(name: str, what: str, count: float, **labels: str) -> CounterMetricFamily:
    family = CounterMetricFamily(name, what, labels=list(labels))
    family.add_metric(list(labels.values()), count)
    return family


def _summary(name: str, what: str, latencies: Iterable[tuple[dict[str, str], deque[float]]]) -> SummaryMetricFamily:
    """latencies: with their labels, in milliseconds. Quantiles alone: nobody keeps sum and count since the start."""
    family = SummaryMetricFamily(name, f"{what} Of the newest {NEWEST}.")
    for labels, values_ms in latencies:
        # Copied at once: others go on writing.
        newest_ms = list(values_ms)[-NEWEST:]
        if newest_ms:
            for quantile, value_ms in zip(QUANTILES, np.quantile(newest_ms, QUANTILES).tolist(), strict=True):
                family.add_sample(name, {**labels, "quantile": f"{quantile:g}"}, value_ms / 1000)
    return family
