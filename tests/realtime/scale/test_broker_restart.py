"""A broker that goes while windows wait takes them along, and nothing else: the server serves on when it is back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import pytest

from dhmd.contract import FeatureSpec
from dhmd.modality import Modality
from realtime.messages.estimate import Estimate
from realtime.mqtt.broker import BrokerAddress
from realtime.scale.edge_link import EdgeLink, linked
from realtime.scale.served import Estimator, WaitingWindow
from realtime.scale.server import Server
from tests.realtime.scale.conftest import MadeUp
from tests.realtime.waiting import PATIENCE_S, until

pytestmark = pytest.mark.anyio


class Gated:
    """An estimator that is held up until `go` is set."""

    def __init__(self, estimator: Estimator) -> None:
        self.go, self.busy = threading.Event(), threading.Event()
        self._estimator = estimator

    def answer(self, requests: Sequence[WaitingWindow]) -> list[Estimate]:
        self.busy.set()
        assert self.go.wait(PATIENCE_S)
        return self._estimator.answer(requests)

    def measure(self) -> bool:
        return self._estimator.measure()


async def test_a_window_that_waits_when_the_broker_goes_does_not_end_the_server(
    mosquitto: Any, made_up: Callable[..., MadeUp], estimator: Estimator, features: Mapping[Modality, FeatureSpec]
) -> None:
    gated = Gated(estimator)
    broker = BrokerAddress.parse(mosquitto.url)
    server = Server(broker, "dhmd-serve", cast("Estimator", gated), features, lambda _: None)
    hall, desk = made_up("hall"), made_up("desk")
    link = EdgeLink(broker, [hall.stream, desk.stream], lambda *_: None)

    async def offer(one: MadeUp, until_then: Callable[[], bool]) -> None:
        """Window after window, as edges do: an opening that finds no server yet is lost."""
        async with asyncio.timeout(PATIENCE_S):
            while not until_then():
                link.offer(one.stream.stream, one.hop())
                await asyncio.sleep(0.1)

    async with asyncio.TaskGroup() as group:
        # An error of the server ends the test.
        group.create_task(server.run())
        async with linked(link):
            for _ in range(3):
                await until(lambda: server.joined.is_set() and link.ready.is_set())
                gated.go.clear()
                gated.busy.clear()
                await offer(hall, gated.busy.is_set)
                await offer(desk, lambda: "desk" in server.streams._opening)
                await asyncio.to_thread(mosquitto.stop)
                await until(lambda: not server.joined.is_set() and not link.ready.is_set())
                gated.go.set()
                await asyncio.to_thread(mosquitto.start)
            for one in (hall, desk):
                before = one.stream.statistics.answered
                await offer(one, lambda one=one, before=before: one.stream.statistics.answered > before)
        server.stop.set()
