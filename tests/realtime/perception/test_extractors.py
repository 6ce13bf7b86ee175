"""Extractors load while something else is made."""

from __future__ import annotations

import threading

import pytest

from dhmd.checkpoint import load
from realtime.perception.extractors import StreamExtractors, loaded_beside


def test_what_loads_is_waited_for() -> None:
    begun = threading.Event()

    def loading() -> StreamExtractors:
        begun.set()
        return StreamExtractors.load(load("base"), None)

    extractors, made = loaded_beside(loading, lambda: begun.wait(60))
    with extractors.face:
        assert made
        assert extractors.transcript is None


def test_what_has_loaded_in_vain_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Left to the garbage collector, a landmarker can wait for its own thread for ever."""
    closed = threading.Event()

    def loading() -> StreamExtractors:
        extractors = StreamExtractors.load(load("base"), None)
        close = extractors.face.close
        monkeypatch.setattr(extractors.face, "close", lambda: (close(), closed.set()))
        return extractors

    def fails() -> None:
        raise RuntimeError("no model")

    with pytest.raises(RuntimeError, match="no model"):
        loaded_beside(loading, fails)
    assert closed.wait(60)


def test_what_keeps_them_from_loading_is_raised() -> None:
    def fails() -> StreamExtractors:
        raise RuntimeError("no face")

    with pytest.raises(RuntimeError, match="no face"):
        loaded_beside(fails, lambda: None)
