"""What people read, in their language: English as it stands in the code, each other language from one file.

CODE.json maps an English text to its own; {name} stands for what is put in. Pages of a server read the same files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Final

from dhmd.untrusted import read_json

FILES: Final = Path(__file__).parent
ENGLISH: Final = "en"
LANGUAGES: Final = (ENGLISH, *sorted(file.stem for file in FILES.glob("*.json")))

_chosen: ContextVar[str] = ContextVar("language", default=ENGLISH)


@contextmanager
def written_in(language: str) -> Iterator[None]:
    """Have `t` return texts in one of LANGUAGES, in this thread or task."""
    token = _chosen.set(language)
    try:
        yield
    finally:
        _chosen.reset(token)


def language() -> str:
    """Return the code of the language that is written in."""
    return _chosen.get()


def t(english: str, **values: object) -> str:
    """Return a text in the language that is written in, with what is put in; one that has none there stays English."""
    text = _texts(language()).get(english, english)
    return text.format(**values) if values else text


@cache
def _texts(code: str) -> Mapping[str, str]:
    if code == ENGLISH:
        return {}
    texts: Mapping[str, str] = read_json((FILES / f"{code}.json").read_bytes())
    return texts
