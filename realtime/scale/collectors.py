"""Figures that Prometheus reads of an edge and of a server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from realtime.metrics.collectors import counter, summary
from realtime.recognition.shared_engine import MOST
from realtime.scale.edge_link import EdgeLink
from realtime.scale.edge_stream import EdgeStatistics
from realtime.scale.server import Server

BATCH_SIZES: Final = tuple(2**power for power in range(MOST.bit_length()))


class EdgeCollector(Collector):
    """Collects what becomes of the windows of an edge."""

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
            yield counter(f"dhmd_windows_{name}", what, count, stream=self._stream)
        round_trips = [({"stream": self._stream}, windows.round_trips_ms)]
        yield summary("dhmd_window_round_trip_seconds", "From sending a window to its estimate.", round_trips)


class ServeCollector(Collector):
    """Collects what a server does."""

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
            ("late_windows", "Windows dropped after they waited too long.", streams.counts["late"]),
            ("gaps", "Windows that others are missing before.", streams.counts["gaps"]),
            ("refused_windows", "Windows of streams that are refused.", streams.counts["refused"]),
            ("malformed_messages", "Messages that are no windows.", streams.counts["malformed"]),
        ):
            yield counter(f"dhmd_serve_{name}", what, count)
        batches = sorted(dict(statistics.batches).items())
        buckets = [(f"{most:.1f}", sum(n for size, n in batches if size <= most)) for most in BATCH_SIZES]
        sizes = HistogramMetricFamily("dhmd_serve_batch_windows", "Windows of a batch.")
        every = sum(n for _, n in batches)
        sizes.add_metric([], [*buckets, ("+Inf", every)], sum(size * n for size, n in batches))
        yield sizes
        held_ms = statistics.held_ms
        yield summary("dhmd_serve_held_seconds", "From the arrival of a window to its estimate.", [({}, held_ms)])
