"""Estimates as JSON lines."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import IO, Self

from realtime.errors import SettingsInvalid
from realtime.pipeline.outputs import Emitted
from realtime.session.files import private

logger = logging.getLogger(__name__)
STDOUT = Path("-")


class EstimateFile:
    """A sink that writes a line an estimate, as it was published; to standard output where the path is `-`.

    The path is opened at once, so that a wrong one is told before anything runs. Raises SettingsInvalid.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            opened = sys.stdout.fileno() if path == STDOUT else path
            self._file: IO[bytes] = open(opened, "wb", buffering=0, closefd=path != STDOUT, opener=private)  # noqa: SIM115
        except OSError as error:
            raise SettingsInvalid(
                f"--estimates {path}: cannot be written ({error.strerror}); name another file"
            ) from None

    def on_estimate(self, emission: Emitted) -> None:
        if self._file.closed:
            return
        try:
            self._file.write(emission.payload + b"\n")
        except OSError as error:
            logger.warning("%s: %s; nothing more is written to it, recognition continues", self._path, error.strerror)
            self._file.close()

    on_person = on_estimate

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
