"""The process: parse, run one command, and leave with its status; what goes wrong is told in one line."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import NoReturn

from dhmd.command_line import Parser
from dhmd.untrusted import plain
from realtime.allowance import Allowance
from realtime.cli import broker, config, live, machine, replay, sessions
from realtime.cli.output import flush_output, let_output_fail
from realtime.concerned import concerned
from realtime.errors import known

logger = logging.getLogger(__name__)

DESCRIPTION = "The emotion that a face, a voice and words show, ten times a second over MQTT."

COMMANDS = (
    live.add_run,
    live.add_demo,
    live.add_web,
    broker.add_edge,
    broker.add_serve,
    replay.add_replay,
    broker.add_watch,
    broker.add_health,
    broker.add_forget,
    sessions.add_export,
    sessions.add_info,
    sessions.add_repair,
    config.add_config,
    machine.add_devices,
    machine.add_doctor,
    machine.add_assets,
    machine.add_bench,
    machine.add_accuracy,
)
"""In the order in which help lists them."""


_interrupted = threading.Event()


def _interrupt(*_: object) -> NoReturn:
    """Raise as Python's own handler does, and note it: native code may turn what is raised into an error of its own."""
    _interrupted.set()
    raise KeyboardInterrupt


def program() -> NoReturn:
    """The process `dhmd-live`: `main`, and out without taking the interpreter down.

    Threads may still be deep in native code (a model that loads, a camera that hangs); finalising under them aborts.
    """
    signal.signal(signal.SIGINT, _interrupt)
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    logging.shutdown()
    flush_output()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its status."""
    options = parser().parse_args(arguments)
    # The pipeline's own threads fill the cores: a BLAS thread that spins beside them takes a third of one for nothing.
    os.environ.update(OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_NUM_THREADS="1")
    # Fewer messages of the libraries underneath.
    os.environ.update(GLOG_minloglevel="2", TF_CPP_MIN_LOG_LEVEL="3")
    if options.goes_on:
        let_output_fail()
    _set_up_logging(verbose=options.verbose)
    command: Callable[[argparse.Namespace], int] = options.command
    if url := getattr(options, "broker", None):
        _warn_of_password(url)
    try:
        code = command(options)
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:
        code = 1  # who read it has left
    except BaseException as error:
        told = known(error)
        if told is not None:
            for line in str(told).splitlines():
                print(f"error: {plain(line)}", file=sys.stderr)
            code = told.exit_code
        elif _interrupted.is_set():
            code = 130
        else:
            raise
    sys.exit(code)


def parser() -> Parser:
    """All commands and their flags."""
    top = Parser(prog="dhmd-live", description=DESCRIPTION)
    top.add_argument("--verbose", action="store_true", help="log what happens inside")
    top.add_argument("--version", action="version", version=f"dhmd-live {version('dhmd')}")
    top.set_defaults(goes_on=False)
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    return top


def _warn_of_password(url: str) -> None:
    """Warn that other users of the machine can read the arguments of its processes."""
    from realtime.errors import SettingsInvalid
    from realtime.mqtt.broker import BrokerAddress

    with contextlib.suppress(SettingsInvalid):
        if BrokerAddress.parse(url).password is not None:
            logger.warning(
                "--broker: a password among the arguments can be read by others on this machine; "
                "use DHMD_BROKER_PASSWORD or --broker-password-file"
            )


MESSAGES_HZ, MESSAGES_AT_ONCE = 2.0, 100.0
"""Messages that are written to stderr: so many a second, and at once."""


class _Lines(logging.Handler):
    """One line a message on stderr, found anew each time: a live view puts itself in its place. What repeats itself
    without end is counted."""

    def __init__(self) -> None:
        super().__init__()
        self._allowance = Allowance(MESSAGES_HZ, MESSAGES_AT_ONCE)
        self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        if not self._allowance.takes(time.monotonic()):
            self._left_out += 1
            return
        if self._left_out:
            print(f"warning: {self._left_out} messages left out", file=sys.stderr)
            self._left_out = 0
        print(self.format(record), file=sys.stderr)

    def format(self, record: logging.LogRecord) -> str:
        of = f"{stream}: " if (stream := concerned()) else ""
        return plain(f"{record.levelname.lower()}: {of}{super().format(record)}")


def _set_up_logging(*, verbose: bool) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[_Lines()], format="%(message)s")
