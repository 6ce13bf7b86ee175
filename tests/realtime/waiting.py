"""Waiting for what happens in another thread or another program."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

PATIENCE_S = 120.0
"""How long anything may take before a test gives up: machines may be busy, and no test measures time by it."""


async def until(happened: Callable[[], Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not happened():  # noqa: ASYNC110 - nothing here knows when to look
            await asyncio.sleep(0.02)
