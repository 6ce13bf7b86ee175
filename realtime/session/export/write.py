"""Write a session in another format."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from dhmd.errors import LibraryMissing
from dhmd.session import Session
from realtime.session.export.formats import FORMATS
from realtime.session.files import check_out, whole_file


def export(path: Path, to: str, out: Path | None = None, *, force: bool = False) -> Path:
    """Write a session in the format `to`; returns where. Raises SessionInvalid, SettingsInvalid, LibraryMissing.

    out: by default beside the session, under its name.
    """
    session = Session.open(path)
    out = out or path.with_suffix(f".{to}")
    check_out(out, path, force=force)
    chosen = FORMATS[to]
    module = importlib.import_module(f"{__package__}.{chosen.module}")
    write: Callable[[Session, IO[bytes]], None] = getattr(module, chosen.write)
    try:
        with whole_file(out) as file:
            write(session, file)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in {"pyarrow", "matplotlib"}:
            raise
        raise LibraryMissing(f"--to {to} needs {library}; pip install 'dhmd[export]'") from None
    return out
