"""Files of a session, and those made from it: their owner's alone. What is made from one replaces nothing unasked, and
is either whole or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from realtime.errors import SettingsInvalid


def private(path: str, flags: int) -> int:
    """Open a file, as an `opener` of `open`, that nobody else may read where it is new: it tells what people show."""
    return os.open(path, flags, 0o600)


def check_out(path: Path, source: Path, *, force: bool) -> None:
    """Raise SettingsInvalid where `path` must not be written. source: what it is made from."""
    if path.exists() and source.exists() and path.samefile(source):
        raise SettingsInvalid(f"--out {path}: is the session itself; name another file")
    if path.is_dir():
        raise SettingsInvalid(f"--out {path}: is a directory; name a file in it")
    if path.exists() and not force:
        raise SettingsInvalid(f"{path}: already exists; name another file with --out, or replace it with --force")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name only once all of it is written. Raises SettingsInvalid."""
    scratch: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:64]}.", delete=False) as file:
            scratch = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        raise SettingsInvalid(f"{path}: cannot be written ({error.strerror}); name another file with --out") from None
    finally:
        if scratch is not None:
            scratch.unlink(missing_ok=True)
