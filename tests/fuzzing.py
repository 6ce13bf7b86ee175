"""Time for a fuzzed test: a second in the suite, a minute in `make soak`, where each run tries other things."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

SECONDS = float(os.environ.get("DHMD_FUZZ_S", "1"))


def chances(fewest: int = 3) -> Iterator[random.Random]:
    """Sources of random numbers, at least `fewest`, for as long as the time lasts."""
    first = time.time_ns() if SECONDS > 1 else 0
    until_s = time.monotonic() + SECONDS
    number = 0
    while number < fewest or time.monotonic() < until_s:
        yield random.Random(first + number)
        number += 1


def spoilt(data: bytes, chance: random.Random) -> bytes:
    """The data with a few bytes changed, left out, or put in twice."""
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 8))):
        place = chance.randrange(len(changed) + 1)
        match chance.randrange(5):
            case 0:
                del changed[place : place + chance.randrange(1, 9)]
            case 1:
                changed[place:place] = changed[place : place + chance.randrange(1, 9)]
            case 2:
                changed[place : place + 8] = chance.choice((b"\xff" * 8, b"\0" * 8, b"\0" * 6 + b"\xf0\x7f"))
            case _:
                changed[place : place + 1] = bytes([chance.randrange(256)])
    return bytes(changed)
