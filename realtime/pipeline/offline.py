"""A file at --pace max: as fast as the machine allows, and the same estimates each time.

Time is the file's own. What was captured by the end of a hop is seen, heard and read side by side, then the window is
cut: no race decides what the model sees.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from realtime.capture.samples import AudioBlock, VideoFrame
from realtime.clock import MediaClock
from realtime.pipeline.pipeline import Due, HopPipeline

S = TypeVar("S")


async def run_offline(
    pipeline: HopPipeline[Due],
    samples: Iterator[VideoFrame | AudioBlock],
    clock: MediaClock,
    *,
    hop_s: float,
    duration_s: float | None,
    stop: asyncio.Event,
    delivered: Callable[[], Awaitable[None]],
    start_s: float = 0.0,
) -> None:
    """Push the file through the pipeline until it ends, `duration_s` of it is done, or `stop` is set.

    samples: in the order of arrival. `delivered` is awaited after each estimate: no sink is overrun. start_s: when the
    samples begin, on the stream clock.
    """
    perception, loop = pipeline.perception, asyncio.get_running_loop()
    with ThreadPoolExecutor(max_workers=3, thread_name_prefix="perceive") as pool:
        for end_s, frames, blocks in by_hop(samples, hop_s, start_s):
            if stop.is_set() or (duration_s is not None and end_s > start_s + duration_s + hop_s / 2):
                return
            await asyncio.gather(
                loop.run_in_executor(pool, _each, perception.see, frames),
                loop.run_in_executor(pool, _each, perception.hear, blocks),
                loop.run_in_executor(pool, perception.listen, blocks),
            )
            clock.advance(end_s)
            due = await loop.run_in_executor(pool, pipeline.estimate, end_s)
            pipeline.emit(due)
            await loop.run_in_executor(pool, pipeline.afterwards, due)
            await delivered()
        await loop.run_in_executor(pool, perception.finish)


def by_hop(
    samples: Iterator[VideoFrame | AudioBlock], hop_s: float, start_s: float = 0.0
) -> Iterator[tuple[float, list[VideoFrame], list[AudioBlock]]]:
    """Samples grouped by the hop in which they arrived: (end of the hop, frames, blocks), empty hops included.

    samples: in the order of arrival. start_s: of the first hop.
    """
    frames: list[VideoFrame] = []
    blocks: list[AudioBlock] = []
    hops = itertools.count(1)
    # Times are sums of many durations; a sample on the edge belongs to the hop it ends.
    end_s = start_s + next(hops) * hop_s
    for sample in samples:
        while sample.arrived_s > end_s + 1e-9:
            yield end_s, frames, blocks
            frames, blocks = [], []
            end_s = start_s + next(hops) * hop_s
        (frames if isinstance(sample, VideoFrame) else blocks).append(sample)  # type: ignore[arg-type]
    if frames or blocks:
        yield end_s, frames, blocks


def _each(perceive: Callable[[S], None], samples: list[S]) -> None:
    for sample in samples:
        perceive(sample)
