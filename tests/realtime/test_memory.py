"""Memory that is freed is there for what comes next."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from realtime.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def products():
    return [np.ones(2_500_000) for _ in range(5)]
for _ in range(3):
    products()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    products()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(what: str) -> int:
    """Page faults of ten rounds of 100 MB that come and go."""
    done = subprocess.run([sys.executable, "-c", FAULTS, what], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is of glibc")
def test_what_is_freed_is_not_given_back_to_the_system() -> None:
    given_back, kept = faults("nothing"), faults("keep")
    assert given_back > 10_000
    assert kept < given_back / 10
