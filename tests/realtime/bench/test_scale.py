"""The bench waits for its servers, whatever they say first."""

from __future__ import annotations

from typing import Any

import psutil

from realtime.bench.scale import _servers
from realtime.mqtt.broker import BrokerAddress


def test_servers_serve_before_they_are_measured(mosquitto: Any) -> None:
    with _servers(BrokerAddress.parse(mosquitto.url), 2) as processes:
        assert len(set(processes)) == 2
        assert all(psutil.pid_exists(process) for process in processes)
