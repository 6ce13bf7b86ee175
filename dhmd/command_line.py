"""Parser of the commands: complaints in one line, with what may have been meant, and examples as they are written."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any, NoReturn, TypeAlias

from dhmd.untrusted import plain


class Parser(argparse.ArgumentParser):
    """Shows descriptions and examples as they stand; a complaint names the nearest word that there is."""

    def __init__(self, **about: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **about)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as usual, but refuse what is unknown here, where the flags of this command are known."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._meant(unknown)}")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        if wrong := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)$", message):
            near = _nearest(wrong[1], re.findall(r"[^\s,']+", wrong[2]))
            message = f"{message[: wrong.start(2) - len(' (choose from ')]}{near}" if near else message
        self.exit(2, f"error: {plain(message)}; see {self.prog} --help\n")

    def _meant(self, unknown: Iterable[str]) -> str:
        flags = [one.partition("=")[0].removeprefix("--") for one in unknown if one.startswith("-")]
        known = [flag.removeprefix("--") for flag in self._option_string_actions if flag.startswith("--")]
        return _nearest(flags[0], known, "--") if flags else ""


def _nearest(word: str, words: Sequence[str], prefix: str = "") -> str:
    near = get_close_matches(word, words, n=1)
    return f" (did you mean {prefix}{near[0]}?)" if near else ""


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001 - it has no public name
Flags: TypeAlias = "Parser | argparse._ArgumentGroup"  # noqa: SLF001 - likewise
"""What a flag can be added to: a command, or one of the groups in which its help shows them."""
