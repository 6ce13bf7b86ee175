"""`dhmd-train`: from corpora to a checkpoint that `dhmd-live` runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from dhmd.errors import DHMDError, LibraryMissing
from dhmd.untrusted import plain


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    # Read when torch is loaded. Threads that spin while they wait take the time of those that they wait for where other
    # work runs beside: a short training took three times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    from training.cli.flags import parser

    args = parser().parse_args(argv)
    try:
        args.run(args)
    except DHMDError as error:
        print(plain(f"dhmd-train: {error}"), file=sys.stderr)
        return error.exit_code
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"dhmd", "training"}:
            raise
        print(f"dhmd-train: {error}; pip install 'dhmd[train]'", file=sys.stderr)
        return LibraryMissing.exit_code
    except KeyboardInterrupt:
        print("dhmd-train: stopped; the same command (fit: with --resume) resumes from here", file=sys.stderr)
        return 130
    return 0
