"""Errors of a live run. Each message names the cause and the remedy in one line."""

from __future__ import annotations

from dhmd.errors import DHMDError


class DHMDLiveError(DHMDError):
    """An error that a live run may meet."""


class SettingsInvalid(DHMDLiveError):
    exit_code = 2


class CameraUnavailable(DHMDLiveError):
    """A camera or a network stream cannot be opened, or stopped delivering."""


class MicrophoneUnavailable(DHMDLiveError):
    """No PortAudio, no such device, or the device cannot be opened."""


class BrokerTooOld(DHMDLiveError):
    """The broker lacks what is needed of MQTT 5."""


class BrokerUnavailable(DHMDLiveError):
    """The broker is away, and there is nothing to do without it."""


class StreamHeld(DHMDLiveError):
    """Another run publishes the stream."""


class StreamTaken(DHMDLiveError):
    """Another run has taken the stream over."""


class StreamAlive(DHMDLiveError):
    """The stream that is to be forgotten still runs."""


class StreamAils(DHMDLiveError):
    """A stream is away, or a part of it does not work."""


class BrokerRefused(DHMDLiveError):
    """The broker rejects our credentials: trying again would not help."""

    exit_code = 3


class CommandRefused(DHMDLiveError):
    """A command to a stream cannot be carried out; who gave it is told."""


def known(error: BaseException) -> DHMDError | None:
    """Return the error that has a line for people: itself, or the first such in a group; None for a fault of ours."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for part in error.exceptions if (found := known(part))), None)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in str(error)):
        return DHMDError("this process gets no more memory; end other programs, or let it have 1.5 GB")
    return error if isinstance(error, DHMDError) else None
