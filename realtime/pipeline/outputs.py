"""Outputs of a stream: its sinks, and whoever else is told of it."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar, runtime_checkable

from realtime.clock import StreamClock
from realtime.messages.estimate import Estimate
from realtime.perception.people import PeopleInView
from realtime.perception.perception import Observer, Perception
from realtime.workers import WorkerStatus


class Emitted(Protocol):
    """An estimate on its way to the sinks, wherever it was made.

    newest_s: capture time of the newest thing perceived, on the stream clock. timed: whether that clock is the
    machine's, so that latencies mean something.
    """

    @property
    def estimate(self) -> Estimate: ...
    @property
    def payload(self) -> bytes: ...
    @property
    def newest_s(self) -> float | None: ...
    @property
    def timed(self) -> bool: ...


E = TypeVar("E", bound=Emitted)
E_contra = TypeVar("E_contra", bound=Emitted, contravariant=True)


@runtime_checkable
class Sink(Protocol[E_contra]):
    """Takes each estimate, without waiting."""

    def on_estimate(self, emission: E_contra, /) -> None: ...


@runtime_checkable
class PersonSink(Protocol[E_contra]):
    """Takes each estimate of each person, where several are followed, without waiting: those of a hop come after the
    stream's own."""

    def on_person(self, emission: E_contra, /) -> None: ...


@runtime_checkable
class PeopleListener(Protocol):
    """Is told, at each hop, who is in view and who speaks, where several are followed."""

    def on_people(self, view: PeopleInView, /) -> None: ...


@runtime_checkable
class WorkerListener(Protocol):
    """Is told how the workers fare."""

    def on_worker(self, status: WorkerStatus, /) -> None: ...


@runtime_checkable
class ConnectionListener(Protocol):
    """Is told of the connection with the broker, in words."""

    def on_connection(self, state: str, /) -> None: ...


@runtime_checkable
class Unhurried(Protocol):
    """Takes its time with what it was handed; a stream that is not live waits for it."""

    async def settled(self) -> None:
        """Return once there is room for more."""


class Outputs(Generic[E]):
    """All that is told of one stream, in the order in which it was added. Lives in the event loop.

    perception: None where nothing is perceived here, as in a replay of features.
    """

    def __init__(self, perception: Perception | None, clock: StreamClock) -> None:
        self.workers: dict[str, WorkerStatus] = {}
        """The newest status of each worker, by its name."""
        self._connection: str | None = None
        self._perception = perception
        self._clock = clock
        self._sinks: list[Sink[E]] = []
        self._person_sinks: list[PersonSink[E]] = []
        self._people_listeners: list[PeopleListener] = []
        self._worker_listeners: list[WorkerListener] = []
        self._connection_listeners: list[ConnectionListener] = []
        self._unhurried: list[Unhurried] = []

    def add(
        self, output: Sink[E] | PersonSink[E] | PeopleListener | WorkerListener | ConnectionListener | Observer
    ) -> None:
        """Tell an output, from now on, all that it has a method for, and what it missed of workers and connection; an
        Observer also what is perceived."""
        if isinstance(output, Sink):
            self._sinks.append(output)
        if isinstance(output, PersonSink):
            self._person_sinks.append(output)
        if isinstance(output, PeopleListener):
            self._people_listeners.append(output)
        if isinstance(output, WorkerListener):
            self._worker_listeners.append(output)
            for status in self.workers.values():
                output.on_worker(status)
        if isinstance(output, ConnectionListener):
            self._connection_listeners.append(output)
            if self._connection is not None:
                output.on_connection(self._connection)
        if isinstance(output, Unhurried):
            self._unhurried.append(output)
        if isinstance(output, Observer) and self._perception is not None:
            self._perception.join(output, self._clock.now())

    @property
    def told(self) -> bool:
        """Whether anybody is told of estimates or people."""
        return bool(self._sinks or self._person_sinks or self._people_listeners)

    def on_estimate(self, emission: E) -> None:
        for sink in self._sinks:
            sink.on_estimate(emission)

    def on_person(self, emission: E) -> None:
        for sink in self._person_sinks:
            sink.on_person(emission)

    def on_people(self, view: PeopleInView) -> None:
        for listener in self._people_listeners:
            listener.on_people(view)

    async def settled(self) -> None:
        """Return once all have room for more."""
        for output in self._unhurried:
            await output.settled()

    def on_worker(self, status: WorkerStatus) -> None:
        self.workers[status.worker] = status
        for listener in self._worker_listeners:
            listener.on_worker(status)

    def on_connection(self, state: str) -> None:
        self._connection = state
        for listener in self._connection_listeners:
            listener.on_connection(state)
