"""The event loop of a program, and Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
from typing import NoReturn

import pytest

from realtime import event_loop


def test_ctrl_c_cancels_what_waits_and_raises_in_the_middle_of_nothing() -> None:
    went_on = False

    async def main() -> None:
        nonlocal went_on
        signal.raise_signal(signal.SIGINT)
        went_on = True
        await asyncio.Event().wait()

    def of_the_program(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, of_the_program)
    try:
        with pytest.raises(KeyboardInterrupt):
            event_loop.run(main())
        assert signal.getsignal(signal.SIGINT) is of_the_program
    finally:
        signal.signal(signal.SIGINT, before)
    assert went_on
