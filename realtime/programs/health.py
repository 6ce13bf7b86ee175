"""`dhmd-live health`: whether a stream is alive and all of its workers work, for containers and supervisors."""

from __future__ import annotations

from typing import Final

from realtime.errors import StreamAils
from realtime.messages.stream import WorkerReport
from realtime.messages.topics import STATUS, WORKER
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.client import kept
from realtime.workers import WorkerState

AILING: Final = frozenset({WorkerState.RESTARTING, WorkerState.FAILED})


def health(broker: BrokerAddress, stream: str) -> str:
    """Return in a line how the stream fares.

    Raises StreamAils where it is away, or a worker of it does not work; BrokerRefused, BrokerUnavailable.
    """
    own, workers = STATUS.at(stream=stream), WORKER.at(stream=stream, worker="+")
    found = kept(broker, [own, workers])
    status = found.pop(own, b"").decode(errors="replace")
    if status != "online":
        raise StreamAils(f"{stream} is {status or 'unknown'} at {broker}; start it, or name another --stream")
    reports = {topic.rpartition("/")[2]: WorkerReport.model_validate_json(told) for topic, told in found.items()}
    if ailing := {name: report for name, report in reports.items() if report.state in AILING}:
        raise StreamAils("; ".join(f"{name} {report.state}: {report.reason}" for name, report in ailing.items()))
    states = ", ".join(f"{name} {report.state}" for name, report in sorted(reports.items()))
    return f"{stream} is online" + (f": {states}" if states else "")
