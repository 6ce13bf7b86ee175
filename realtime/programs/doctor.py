"""`dhmd-live devices`, `doctor` and `assets`: what this machine has, and what is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Column, Table

from dhmd.assets.store import ASSETS, AssetUnavailable, FileState, asset_named, fetch, verify
from realtime.capture.camera import list_cameras
from realtime.capture.microphone import list_microphones
from realtime.errors import CameraUnavailable, DHMDLiveError, MicrophoneUnavailable

LIBRARIES = {
    "torch": "torch",
    "opencv-python-headless": "cv2",
    "mediapipe": "mediapipe",
    "faster-whisper": "faster_whisper",
    "av": "av",
    "sounddevice": "sounddevice",
    "aiomqtt": "aiomqtt",
    "amqtt": "amqtt",
}
"""Distribution -> module."""


class Check(NamedTuple):
    """Outcome of one check. problem: empty when all is well. needed: whether a run is impossible without it."""

    name: str
    found: str
    problem: str = ""
    needed: bool = True


def show_devices(console: Console) -> int:
    """Cameras, microphones and compute devices, by the names that `run` takes."""
    table = Table("what", "give", "name", box=None, padding=(0, 2), header_style="bold")
    try:
        cameras = list_cameras()
        for camera in cameras:
            table.add_row("camera", f"--source {camera.source}", camera.name)
        if not cameras:
            table.add_row("camera", "-", "none found; a file, rtsp:// or http:// stream does as well")
    except CameraUnavailable as error:
        table.add_row("camera", "-", str(error))
    try:
        microphones = list_microphones()
        for microphone in microphones:
            default = " (default)" if microphone.is_default else ""
            give = f'--microphone "{microphone.name}"'
            table.add_row("microphone", give, f"{microphone.host}, {microphone.rate_hz:.0f} Hz{default}")
        if not microphones:
            table.add_row("microphone", "-", "none found")
    except MicrophoneUnavailable as error:
        table.add_row("microphone", "-", str(error))
    for device, name in _compute_devices():
        table.add_row("compute", f"--device {device}", name)
    console.print(table)
    return 0


def show_checks(console: Console) -> int:
    """Everything a run needs, with the remedy for what is missing. 0 when a run can start."""
    checks = [Check("Python", platform.python_version()), *(_library(*pair) for pair in LIBRARIES.items())]
    checks += [*(_weights(name) for name in ASSETS if _wanted(name)), _checkpoint(), _listed("cameras", list_cameras)]
    checks += [_listed("microphones", list_microphones), _broker()]
    table = Table(box=None, padding=(0, 2), show_header=False)
    for check in checks:
        mark = "[green]ok[/]" if not check.problem else "[red]missing[/]" if check.needed else "[yellow]none[/]"
        table.add_row(mark, check.name, check.problem or check.found)
    console.print(table)
    return int(any(check.problem and check.needed for check in checks))


def show_assets(action: str, names: Sequence[str], console: Console) -> int:
    """List, fetch or verify third-party weights: those named, else those of every run. 0 when they are here and intact.

    Raises AssetUnavailable.
    """
    needed = [asset_named(name) for name in names] or [asset for asset in ASSETS.values() if not asset.chosen]
    if action == "fetch":
        for asset in needed:
            fetch(asset.name)
    size = Column("MB", justify="right")
    asset_name = Column("asset", no_wrap=True)
    table = Table(asset_name, "file", size, "licence", "state", box=None, padding=(0, 2), header_style="bold")
    whole = True
    for asset in needed if names else ASSETS.values():
        states = verify(asset.name)
        if asset not in needed and set(states.values()) == {FileState.MISSING}:
            megabytes = f"{asset.size / 1e6:.1f}"
            table.add_row(asset.name, "all", megabytes, asset.licence, "on demand", style="grey50")
            continue
        for file in asset.files:
            state = states[file.name]
            whole &= state is FileState.INTACT
            colour = "green" if state is FileState.INTACT else "red"
            table.add_row(asset.name, file.name, f"{file.size / 1e6:.1f}", asset.licence, f"[{colour}]{state}[/]")
    console.print(table)
    if not whole and action != "fetch":
        console.print("fetch what is missing or damaged with: dhmd-live assets fetch")
    return 0 if whole or action == "list" else 1


def _wanted(name: str) -> bool:
    """Tells whether every run needs an asset, or somebody has chosen it."""
    return not ASSETS[name].chosen or ASSETS[name].folder.is_dir()


def _library(distribution: str, module: str) -> Check:
    try:
        importlib.import_module(module)
        return Check(distribution, importlib.metadata.version(distribution))
    except (ImportError, OSError) as error:
        remedy = "apt install libportaudio2" if "PortAudio" in str(error) else f"pip install {distribution}"
        return Check(distribution, "", f"{error}; {remedy}", needed=distribution != "sounddevice")


def _weights(name: str) -> Check:
    try:
        damaged = [file for file, state in verify(name).items() if state is not FileState.INTACT]
    except AssetUnavailable as error:
        return Check(name, "", str(error))
    problem = f"{', '.join(damaged)} missing or damaged; dhmd-live assets fetch" if damaged else ""
    return Check(name, f"{ASSETS[name].size / 1e6:.0f} MB, verified", problem)


def _checkpoint() -> Check:
    from dhmd.checkpoint import CheckpointInvalid, load

    try:
        base = load("base")
    except CheckpointInvalid as error:
        return Check("checkpoint base", "", str(error))
    weights = sum(p.numel() for p in base.model.parameters())
    return Check("checkpoint base", f"{base.digest}, {weights / 1e6:.1f} M weights")


def _listed(what: str, find: Callable[[], Sequence[object]]) -> Check:
    try:
        found = find()
    except DHMDLiveError as error:
        return Check(what, "", str(error), needed=False)
    return Check(what, f"{len(found)} found", "" if found else "none found", needed=False)


def _broker() -> Check:
    import socket

    from realtime.mqtt.broker import DEFAULT_PORT

    with socket.socket() as probe:
        probe.settimeout(0.5)
        listening = probe.connect_ex(("127.0.0.1", DEFAULT_PORT)) == 0
    here, none = f"one listens on 127.0.0.1:{DEFAULT_PORT}", "none on this machine; the embedded one will do"
    return Check("MQTT broker", here if listening else none)


def _compute_devices() -> list[tuple[str, str]]:
    import torch

    gpus = [(f"cuda:{i}", torch.cuda.get_device_name(i)) for i in range(torch.cuda.device_count())]
    return [("cpu", f"{torch.get_num_threads()} threads"), *gpus]
