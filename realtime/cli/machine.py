"""`devices`, `doctor`, `assets`, `bench`: what this machine has, and what it can."""

from __future__ import annotations

import argparse

from realtime.cli.flags import Commands


def add_devices(commands: Commands) -> None:
    devices = commands.add_parser("devices", help="list cameras, microphones and compute devices")
    devices.set_defaults(command=_devices)


def _devices(_: argparse.Namespace) -> int:
    from rich.console import Console

    from realtime.programs.doctor import show_devices

    return show_devices(Console())


def add_doctor(commands: Commands) -> None:
    doctor = commands.add_parser("doctor", help="check that everything a run needs is here")
    doctor.set_defaults(command=_doctor)


def _doctor(_: argparse.Namespace) -> int:
    from rich.console import Console

    from realtime.programs.doctor import show_checks

    return show_checks(Console())


def add_assets(commands: Commands) -> None:
    assets = commands.add_parser("assets", help="list, fetch and verify third-party weights")
    assets.set_defaults(command=_assets)
    assets.add_argument("action", nargs="?", choices=["list", "fetch", "verify"], default="list")


def _assets(options: argparse.Namespace) -> int:
    from rich.console import Console

    from realtime.programs.doctor import show_assets

    return show_assets(options.action, Console())


def add_bench(commands: Commands) -> None:
    bench = commands.add_parser("bench", help="measure rate, latency, start-up and memory on this machine")
    bench.set_defaults(command=_bench)
    bench.add_argument("--seconds", type=float, default=300.0, help="length of the run (default: %(default)g)")


def _bench(options: argparse.Namespace) -> int:
    from rich.console import Console

    from realtime.bench.bench import bench

    return bench(options.seconds, Console())
