"""The root of all errors that are for people: each has one line that names the cause and the remedy."""

from __future__ import annotations


class DHMDError(Exception):
    """Ends a command with its line on stderr and `exit_code`, never with a traceback."""

    exit_code = 1


class DeviceUnavailable(DHMDError):
    """The compute device asked for is not here, or not as often as asked for."""


class LibraryMissing(DHMDError):
    """A library that the plain install does without is needed."""


class MediaUnreadable(DHMDError):
    """A file is missing, empty, cut off, or holds nothing that can be decoded."""
