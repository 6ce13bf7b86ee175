"""The root of all errors that are for people: each has one line that names the cause and the remedy."""

from __future__ import annotations


class DHMDError(Exception):
    """Ends a command with its line on stderr and `exit_code`, never with a traceback."""

    exit_code = 1


class MediaUnreadable(DHMDError):
    """A file is missing, empty, cut off, or holds nothing that can be decoded."""
