"""Name under which this program was started, for commands that people are to paste."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def command(*words: object) -> str:
    """Return a command of this program that a shell in this folder runs, in one line."""
    started = Path(sys.argv[0])
    if started.name == "__main__.py" or not started.is_file():
        program = [sys.executable, "-m", "realtime"]
    elif (found := shutil.which(started.name)) and Path(found).resolve() == started.resolve():
        program = [started.name]
    else:
        beside = started.is_absolute() and started.is_relative_to(Path.cwd())
        program = [os.path.relpath(started) if beside else str(started)]
    return shlex.join([*program, *map(str, words)])
