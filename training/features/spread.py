"""Work on pieces here or on many cores and machines: Ray Data where it pays, this process where it does not."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from dhmd.errors import extra
from dhmd.machine import cores, native_stderr_to
from training.errors import WorkersUnavailable
from training.features.pieces import Made, Piece, PieceMaker

WORTH_S: Final = 30.0
"""Ray takes about 10 s to start: less work than this is done in this process."""

_QUIET: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # it calls its own way of starting workers an error
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "OMP_NUM_THREADS": "1",
}


def make(
    pieces: Sequence[Piece], encoders: Path, jobs: int | None = None, address: str | None = None
) -> Iterator[Made]:
    """Every piece once, in the order in which they get done.

    jobs: processes; as many as there are cores unless given. With one, or with little to do, all is done here.
    address: of a Ray cluster ("auto": the one this machine belongs to), whose machines see the files under the same
    paths; everything is done there, however little.
    """
    jobs = jobs or cores()
    little = sum(piece.recipe.cost_s for piece in pieces) < WORTH_S
    if address is None and (jobs == 1 or little):
        with closing(PieceMaker(encoders)) as maker:
            yield from map(maker, pieces)
    elif pieces:
        yield from _spread(pieces, encoders.absolute(), jobs, address)


def _spread(pieces: Sequence[Piece], encoders: Path, jobs: int, address: str | None) -> Iterator[Made]:
    with _ray(jobs, address) as data:

        class Worker:
            """One a process."""

            def __init__(self) -> None:
                import torch

                torch.set_num_threads(1)
                self._extractor = PieceMaker(encoders)

            def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
                made = np.empty(len(batch["piece"]), object)
                made[:] = [self._extractor(piece) for piece in batch["piece"]]
                return {"made": made}

        blocks = min(len(pieces), max(8 * jobs, len(pieces) // 32))
        work = data.from_items([{"piece": piece} for piece in pieces], override_num_blocks=blocks)
        work = work.map_batches(Worker, batch_size=8, num_cpus=1, concurrency=jobs)
        for batch in work.iter_batches(batch_size=None, prefetch_batches=0):
            yield from batch["made"]


@contextmanager
def _ray(jobs: int, address: str | None) -> Iterator[Any]:
    """Ray Data while it runs: nothing is reported to anybody, and without an address nothing listens but to this
    machine."""
    os.environ.update(_QUIET)
    if address is None:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on every system: no cluster, so loopback only
    with extra("train", "--jobs above 1"):
        import ray
        import ray.data
    own: dict[str, Any] = {} if address else {"num_cpus": jobs, "include_dashboard": False}
    try:
        # It says there that it obeys RAY_BACKEND_LOG_LEVEL.
        with Path(os.devnull).open("wb") as nowhere, native_stderr_to(nowhere.fileno()):
            ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise WorkersUnavailable(f"Ray does not start ({reason}); check --address, or give --jobs 1") from error
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        for name in ("ray", "ray.data"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield ray.data
    finally:
        ray.shutdown()
