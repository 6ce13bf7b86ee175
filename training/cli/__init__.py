"""`dhmd-train`: from corpora to a checkpoint that `dhmd-live` runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from dhmd.errors import DHMDError, LibraryMissing
from dhmd.untrusted import plain
from training.cli.flags import parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
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
