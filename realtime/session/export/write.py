"""Write a session in another format."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Final

from dhmd.errors import extra
from dhmd.session import Session
from realtime.errors import SettingsInvalid
from realtime.languages import ENGLISH, written_in
from realtime.session.export.comparison import Compared, page, write_csv
from realtime.session.export.formats import FORMATS
from realtime.session.files import check_out, whole_file

COMPARED: Final = "sessions"
"""Name of the page, or the table, of several sessions."""


def export(path: Path, to: str, out: Path | None = None, *, force: bool = False, language: str = ENGLISH) -> Path:
    """Write a session in the format `to`; returns where. Raises SessionInvalid, SettingsInvalid, LibraryMissing.

    out: by default beside the session, under its name. language: of a report, or its picture.
    """
    session = Session.open(path)
    out = out or path.with_suffix(f".{to}")
    check_out(out, path, force=force)
    chosen = FORMATS[to]
    module = importlib.import_module(f"{__package__}.{chosen.module}")
    write: Callable[[Session, IO[bytes]], None] = getattr(module, chosen.write)
    with extra("export", f"--to {to}"), whole_file(out) as file, written_in(language):
        write(session, file)
    return out


def compare(
    paths: Sequence[Path], to: str, out: Path | None = None, *, force: bool = False, language: str = ENGLISH
) -> Path:
    """Write a page or a table of several sessions, a row each; returns where. Raises SessionInvalid, SettingsInvalid.

    out: by default beside the first of them. language: of a page.
    """
    if to not in {"html", "csv"}:
        raise SettingsInvalid(f"--to {to}: several sessions become one page or one table; use --to html or csv")
    out = out or paths[0].parent / f"{COMPARED}.{to}"
    for path in paths:
        check_out(out, path, force=force)
    compared = [Compared.of(path) for path in paths]
    with whole_file(out) as file, written_in(language):
        file.write(write_csv(compared) if to == "csv" else page(compared, out).encode())
    return out
