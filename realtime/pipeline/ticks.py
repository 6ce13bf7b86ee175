"""When an estimate is due: a tick a hop, moved a little to where the pictures come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from realtime.pipeline.pipeline import Due, Hopping


class Phase:
    """Moves the ticks, a little each, to where a picture has just been taken up: the estimate waits for it, and is of
    the newest picture there is. Of ticks that fall differently among the pictures the best falls there.
    """

    AFTER_S = 0.008
    """What pictures come late by, now and then."""
    STEP_S = 0.001

    def __init__(self) -> None:
        self._waited_s: deque[float] = deque(maxlen=12)

    def shift_s(self, looking_for_s: float) -> float:
        """For the tick that is due; `looking_for_s` as of Perception."""
        self._waited_s.append(looking_for_s)
        least_s = min(self._waited_s)
        if least_s > 1.0:
            return 0.0
        shift_s = max(-self.STEP_S, min(self.STEP_S, self.AFTER_S - least_s))
        # As they would have been.
        self._waited_s = deque((waited_s + shift_s for waited_s in self._waited_s), self._waited_s.maxlen)
        return shift_s


async def tick(pipeline: Hopping[Due], hop_now_s: Callable[[], float]) -> None:
    """One estimate a hop. A tick that comes more than a hop late is missed and counted, never made up for."""
    clock, loop, phase = pipeline.clock, asyncio.get_running_loop(), Phase()
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
            due_s += phase.shift_s(pipeline.perception.looking_for_s)
            pipeline.emit(await loop.run_in_executor(thread, pipeline.estimate, due_s))
