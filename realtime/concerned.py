"""The stream that messages to people concern, where one process has several: they are told with its name."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec

P = ParamSpec("P")

_stream: contextvars.ContextVar[str] = contextvars.ContextVar("stream", default="")


@contextmanager
def concerning(stream: str) -> Iterator[None]:
    """Have messages concern a stream: those of this task or thread, and of tasks and `carried` threads begun in it."""
    token = _stream.set(stream)
    try:
        yield
    finally:
        _stream.reset(token)


def concerned() -> str:
    """Return the stream that messages concern now; empty where there is but one."""
    return _stream.get()


def carried(work: Callable[P, object]) -> Callable[P, None]:
    """Return `work` for another thread, with the stream that messages concern here: threads know nothing of it."""
    context = contextvars.copy_context()

    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        context.run(work, *args, **kwargs)

    return run
