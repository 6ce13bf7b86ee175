"""Ticks, at which estimates are due: one a hop, moved a little to where the pictures come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from realtime.pipeline.pipeline import Due, HopPipeline


async def tick(pipeline: HopPipeline[Due], hop_now_s: Callable[[], float]) -> None:
    """Make one estimate a hop. A tick that comes more than a hop late is missed and counted, never made up for."""
    clock, loop = pipeline.clock, asyncio.get_running_loop()
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine") as thread:
        due_s = clock.now()
        while True:
            hop_s = hop_now_s()
            due_s += hop_s
            late_hops = int((clock.now() - due_s) / hop_s)
            if late_hops > 0:
                pipeline.statistics.missed_ticks += late_hops
                due_s += late_hops * hop_s
            await asyncio.sleep(max(0.0, due_s - clock.now()))
            due_s += pipeline.perception.picture.shift_s(hop_s)
            due = await loop.run_in_executor(thread, pipeline.estimate, due_s)
            pipeline.emit(due)
            await loop.run_in_executor(thread, pipeline.afterwards, due)
