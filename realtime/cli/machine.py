"""`devices`, `doctor`, `assets`, `bench`, `accuracy`: what this machine has, and what it and the model can."""

from __future__ import annotations

import argparse
from pathlib import Path

from dhmd.command_line import Commands
from realtime.cli.output import PlainConsole

ACCURACY_EXAMPLES = """what it reads:
  grid_*    neutral talkers, as those of the GRID corpus
  mead_*    acted emotions, as those of MEAD
            and the demo clip; suffixes .mp4, .mpg, .mov, .mkv, .avi, .webm

what it tells:
  how often a neutral talker is called neutral, and how often the label changes in a minute, as the model gives it and
  as it is published (see --margin of `dhmd-live run`); what each acted clip is called; and the share of ticks whose
  label stays when a clip comes at another speed, in another light, with noise, compressed, ... (made by ffmpeg)

Each clip is read as by `run --pace max`. What was read is kept under ~/.cache/dhmd: an interrupted call goes on where
it was. It takes some minutes. Without such clips it says so in one line, and is done.

examples:
  dhmd-live accuracy clips/                                the model that ships
  dhmd-live accuracy clips/ --checkpoint runs/mine         another one
  dhmd-live accuracy clips/ --into docs/accuracy.md        its tables take the place of those in the page
"""


DEVICES_EXAMPLES = """examples:
  dhmd-live devices                                        each with the flag that takes it
"""
DOCTOR_EXAMPLES = """examples:
  dhmd-live doctor                                         each check with its remedy

exit status: 0 a run can start, 1 it cannot.
"""
ASSETS_EXAMPLES = """examples:
  dhmd-live assets                                         what there is, and its licences
  dhmd-live assets fetch                                   what every run needs, 174 MB in all
  dhmd-live assets fetch faster-whisper-base               another one: what --speech base recognises words with
  dhmd-live assets verify                                  their sha256

exit status: 0 all are here and intact (list: always), 1 not.
"""
BENCH_EXAMPLES = """examples:
  dhmd-live bench                                          five minutes of the demo clip, and the rest
  dhmd-live bench --seconds 30                             a rough one

How steady the label is on neutral talkers, in changes a minute, `dhmd-live accuracy` measures on clips of them.
"""


def add_devices(commands: Commands) -> None:
    devices = commands.add_parser(
        "devices", help="list cameras, microphones and compute devices", epilog=DEVICES_EXAMPLES
    )
    devices.set_defaults(command=_devices)


def _devices(_: argparse.Namespace) -> int:

    from realtime.programs.doctor import show_devices

    return show_devices(PlainConsole())


def add_doctor(commands: Commands) -> None:
    doctor = commands.add_parser("doctor", help="check that everything a run needs is here", epilog=DOCTOR_EXAMPLES)
    doctor.set_defaults(command=_doctor)


def _doctor(_: argparse.Namespace) -> int:

    from realtime.programs.doctor import show_checks

    return show_checks(PlainConsole())


def add_assets(commands: Commands) -> None:
    assets = commands.add_parser("assets", help="list, fetch and verify third-party weights", epilog=ASSETS_EXAMPLES)
    assets.set_defaults(command=_assets)
    assets.add_argument(
        "action", nargs="?", choices=["list", "fetch", "verify"], default="list", help="(default: list)"
    )
    assets.add_argument("names", nargs="*", metavar="NAME", help="these alone (default: those that every run needs)")


def _assets(options: argparse.Namespace) -> int:

    from realtime.programs.doctor import show_assets

    return show_assets(options.action, options.names, PlainConsole())


def add_bench(commands: Commands) -> None:
    bench = commands.add_parser(
        "bench", help="measure rate, latency, start-up and memory on this machine", epilog=BENCH_EXAMPLES
    )
    bench.set_defaults(command=_bench)
    bench.add_argument(
        "--seconds", type=float, metavar="S", default=300.0, help="length of the run (default: %(default)g)"
    )


def _bench(options: argparse.Namespace) -> int:

    from realtime.bench.bench import bench

    return bench(options.seconds, PlainConsole())


def add_accuracy(commands: Commands) -> None:
    accuracy = commands.add_parser(
        "accuracy",
        help="measure on clips of talkers how steady and how robust the label is",
        description="Measure how steady the label is on clips of talkers, and how much of it stays when they change.",
        epilog=ACCURACY_EXAMPLES,
    )
    accuracy.set_defaults(command=_accuracy)
    accuracy.add_argument("clips", type=Path, metavar="DIR", help="folder of the clips")
    accuracy.add_argument("--checkpoint", default="base", metavar="base|DIR", help="the model (default: base)")
    accuracy.add_argument("--into", type=Path, metavar="FILE.md", help="also write the tables into this page")


def _accuracy(options: argparse.Namespace) -> int:

    from realtime.bench.accuracy import accuracy

    return accuracy(options.clips, options.checkpoint, options.into, PlainConsole())
