"""The root of all errors that are for people: each has one line that names the cause and the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class DHMDError(Exception):
    """Ends a command with its line on stderr and `exit_code`, never with a traceback."""

    exit_code = 1


class DeviceUnavailable(DHMDError):
    """The compute device asked for is not here, or not as often as asked for."""


class LibraryMissing(DHMDError):
    """A library that the plain install does without is needed."""


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Raise LibraryMissing where an import inside fails. name: the extra that brings the library; what: needs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        library = str(error.name).partition(".")[0]
        raise LibraryMissing(f"{what} needs {library}; pip install 'dhmd[{name}]'") from None


class MediaUnreadable(DHMDError):
    """A file is missing, empty, cut off, or holds nothing that can be decoded."""
