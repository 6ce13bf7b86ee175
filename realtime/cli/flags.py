"""Flags that several commands share, written and read."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from dhmd.command_line import Flags, Parser
from realtime.recognition.steadiness import MARGIN

if TYPE_CHECKING:
    from realtime.layers import Layer
    from realtime.mqtt.broker import BrokerAccess
    from realtime.recognition.steadiness import Steadiness
    from realtime.settings import RunSettings


def add_run_flags(run: Parser, source: str = "camera:0", below: Mapping[str, object] | None = None) -> None:
    """Add one flag a key of RunSettings, without defaults: what is not given is left to the file and the settings."""
    add_config_flag(run, **(below or {}))
    add_stream_flags(run, hop="0.1, or as the machine can", source=source, brokers="URL|embedded|none", devices=True)
    add_control_flags(run)
    add_record_flags(run)


def add_stream_flags(
    run: Parser, hop: str, source: str = "camera:0", brokers: str = "URL", *, devices: bool = False
) -> None:
    """Add the flags of a source and its stream. devices: also that of where the model runs."""
    perceived = run.add_argument_group("what is perceived")
    _add_source_flags(perceived, source)
    add_people_flag(perceived)
    model = run.add_argument_group("the model and its answer")
    model.add_argument(
        "--checkpoint", metavar="NAME|DIR", help="the model: base, multilingual or a folder (default: base)"
    )
    if devices:
        add_device_flag(model)
    model.add_argument(
        "--hop", type=float, dest="hop_s", metavar="S", help=f"seconds between estimates (default: {hop})"
    )
    add_steadiness_flags(model)
    out = run.add_argument_group("where it goes")
    embedded = ", embedded on loopback, or none (default: embedded)" if "embedded" in brokers else ""
    out.add_argument("--broker", metavar=brokers, help=f"mqtt[s]:// or ws[s]://[user@]host[:port]{embedded}")
    add_access_flags(out)
    out.add_argument("--stream", metavar="NAME", help="topics are dhmd/NAME/... (default: default)")
    out.add_argument(
        "--take-over", action="store_true", default=None, help="end another run that publishes the stream NAME"
    )
    out.add_argument(
        "--state", action="store_true", default=None, help="also publish single values, retained: dhmd/NAME/state/..."
    )
    out.add_argument(
        "--discovery",
        action="store_true",
        default=None,
        help="announce the stream to Home Assistant (implies --state); `dhmd-live forget` removes it again",
    )
    add_prefix_flag(out)
    out.add_argument(
        "--estimates",
        metavar="FILE",
        help="also write the estimates here, one JSON object a line; - for standard output",
    )
    add_outlet_flags(out)
    add_metrics_flags(out)


def _add_source_flags(group: Flags, source: str) -> None:
    group.add_argument(
        "--source",
        metavar="PATH|URL|camera:N|none",
        help=f"media file, camera:N, /dev/videoN, rtsp[s]:// or http[s]:// stream (default: {source})",
    )
    group.add_argument(
        "--source-ca", metavar="FILE", help="CA of the certificate of an https:// or rtsps:// camera, PEM"
    )
    group.add_argument(
        "--source-insecure", action="store_true", default=None, help="take any certificate of such a camera"
    )
    group.add_argument(
        "--microphone",
        metavar="NAME|default|none",
        help="see `dhmd-live devices` (default: with a camera the default one, with a file its own sound)",
    )
    group.add_argument(
        "--pictures",
        type=float,
        dest="pictures_hz",
        metavar="HZ",
        help="pictures looked at in a second, 3 to 15 (default: 15; a run takes what the machine can keep)",
    )
    group.add_argument(
        "--pace", choices=["realtime", "max"], help="max: a file as fast as possible (default: realtime)"
    )
    group.add_argument(
        "--duration", type=float, metavar="S", help="stop after S seconds (default: at the source's end)"
    )
    add_speech_flags(group)
    said = group.add_mutually_exclusive_group()
    said.add_argument(
        "--no-words",
        dest="words",
        action="store_const",
        const="private",
        help="words are read by the model and told to nobody: not published, recorded or shown",
    )
    said.add_argument(
        "--no-transcript", dest="words", action="store_const", const="off", help="recognise no speech at all"
    )


def add_speech_flags(group: Flags) -> None:
    """Add the flags of what words are recognised with."""
    group.add_argument(
        "--speech",
        metavar="tiny.en|tiny|base|small|DIR|NAME",
        help="what recognises words; all but tiny.en know about a hundred languages (default: tiny.en, English only)",
    )
    group.add_argument(
        "--language",
        metavar="auto|en|de|...",
        help="what is spoken (default: auto, found in the first seconds of speech and followed)",
    )
    group.add_argument(
        "--untested-words",
        action="store_true",
        default=None,
        help="read words of languages, too, in which the model was not tested; else they are only shown",
    )


def add_people_flag(command: Flags) -> None:
    command.add_argument(
        "--people",
        type=lambda text: int(text) if text.isdecimal() and len(text) < 9 else text,
        metavar="N|all",
        help="follow up to N people, each with an estimate of their own (default: 1)",
    )


def add_device_flag(command: Flags) -> None:
    command.add_argument("--device", metavar="auto|cpu|cuda", help="where the model runs (default: auto)")


def add_outlet_flags(command: Flags) -> None:
    """Add the flags of what else an estimate is sent by."""
    command.add_argument(
        "--lsl",
        action="store_true",
        default=None,
        help="send numbers and markers by the lab streaming layer: whoever is on the local network can receive them",
    )
    command.add_argument("--osc", metavar="HOST:PORT", help="send numbers and events by Open Sound Control, over UDP")


def add_steadiness_flags(command: Flags) -> None:
    """Add the flags of an answer that is kept still."""
    command.add_argument(
        "--smoothing",
        type=float,
        dest="smoothing_s",
        metavar="S",
        help="average what is said over S seconds (default: 0, as the model gives them)",
    )
    command.add_argument(
        "--margin",
        type=float,
        metavar="P",
        help="another emotion takes the top once it has led by this probability for a second, or by more for less; "
        f"0: at once (default: {MARGIN:g})",
    )


def add_control_flags(run: Parser) -> None:
    """Add the flags of control from outside."""
    group = run.add_argument_group("control from outside")
    group.add_argument(
        "--allow-control", action="store_true", default=None, help="carry out commands sent to dhmd/NAME/set/..."
    )
    group.add_argument("--record-dir", metavar="DIR", help="folder of the recordings that a command starts")


def add_broker_flags(command: Flags, *, required: bool = True) -> None:
    """Add the flags of a command that is nothing without a broker. required: no other place can name it."""
    command.add_argument("--broker", required=required, metavar="URL", help="mqtt[s]:// or ws[s]://[user@]host[:port]")
    add_access_flags(command)


def add_access_flags(command: Flags) -> None:
    """Add the flags that let a command in at a broker. A password itself has no place among a process's arguments."""
    command.add_argument(
        "--broker-ca", metavar="FILE", help="CA of the broker's certificate, PEM (default: the system's)"
    )
    command.add_argument("--broker-cert", metavar="FILE", help="client certificate, PEM")
    command.add_argument("--broker-key", metavar="FILE", help="its key, PEM, if not in the same file")
    command.add_argument(
        "--broker-password-file",
        metavar="FILE",
        help="its first line is the password; or set DHMD_BROKER_USER and DHMD_BROKER_PASSWORD",
    )


def add_prefix_flag(command: Flags) -> None:
    command.add_argument(
        "--discovery-prefix", metavar="TOPIC", help="where Home Assistant looks for devices (default: homeassistant)"
    )


def add_metrics_flags(command: Flags) -> None:
    command.add_argument(
        "--metrics-port", type=int, metavar="PORT", help="answer Prometheus on this port of 127.0.0.1 (0: a free one)"
    )
    command.add_argument("--metrics-host", metavar="ADDRESS", help="answer on this address instead (0.0.0.0: on all)")


def add_record_flags(command: Parser) -> None:
    group = command.add_argument_group("what is recorded")
    group.add_argument("--record", metavar="FILE.mcap", help="record features, words and estimates; no media")
    group.add_argument("--record-video", action="store_true", default=None, help="also record the pictures")
    group.add_argument("--record-audio", action="store_true", default=None, help="also record the sound")
    group.add_argument("--participant", metavar="NAME", help="who is recorded, a name or a number, for the report")
    group.add_argument("--notes", metavar="TEXT", help="what else the report shall tell")


def add_config_flag(command: Flags, **below: object) -> None:
    """Let a command read a configuration file and the environment. below: its own defaults, by their keys."""
    command.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="YAML file with the same keys; the environment (DHMD_STREAM=hall) overrides it, flags override both",
    )
    command.set_defaults(below=below)


def layers_of(options: argparse.Namespace, **below: object) -> list[Layer]:
    """Return where the settings of a command come from, as far as it has flags for them. below: its own defaults."""
    from realtime.layers import layers
    from realtime.settings import RunSettings

    flags = {name: value for name in RunSettings.model_fields if (value := getattr(options, name, None)) is not None}
    if "config" not in options:
        return layers(None, flags, below, {})
    return layers(options.config, flags, {**options.below, **below}, os.environ)


def settings_of(options: argparse.Namespace, **below: object) -> RunSettings:
    """Return what was asked for, as far as the command has flags for it. below: its own defaults."""
    from realtime.layers import checked, one_stream

    return one_stream(checked(layers_of(options, **below)))


def steadiness_of(options: argparse.Namespace) -> Steadiness | None:
    """Return what `add_steadiness_flags` asked for; None where nothing was. Raises SettingsInvalid."""
    from realtime.layers import read_settings

    given = {name: value for name in ("smoothing_s", "margin") if (value := getattr(options, name)) is not None}
    return read_settings(None, given).steadiness if given else None


def without_page(settings: RunSettings) -> RunSettings:
    """Return the settings of a command without a page. Raises SettingsInvalid where a visitor's camera is asked for."""
    from realtime.errors import SettingsInvalid
    from realtime.settings import BROWSER

    if settings.source == BROWSER:
        raise SettingsInvalid("--source browser: a browser's camera needs a page; use dhmd-live web")
    return settings


def access_of(options: argparse.Namespace) -> BrokerAccess:
    """Return what `add_access_flags` asked for."""
    from realtime.mqtt.broker import BrokerAccess

    return BrokerAccess(options.broker_ca, options.broker_cert, options.broker_key, options.broker_password_file)
