"""`edge`, `serve`, `watch`, `forget`: the commands that meet others at a broker."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dhmd.command_line import Commands
from dhmd.untrusted import plain
from realtime.cli.flags import (
    access_of,
    add_broker_flags,
    add_config_flag,
    add_device_flag,
    add_metrics_flags,
    add_prefix_flag,
    add_stream_flags,
    settings_of,
    without_page,
)
from realtime.cli.output import PlainConsole
from realtime.cli.page import add_address_flags, address_of, address_settings

if TYPE_CHECKING:
    from realtime.mqtt.broker import BrokerAddress
    from realtime.settings import RunSettings

EDGE_EXAMPLES = """examples:
  dhmd-live edge --broker mqtt://broker.local --stream hall
                                                           webcam and microphone; no model runs here
  dhmd-live edge --broker mqtt://broker.local --stream hall --source rtsp://camera.local/live --hop 0.5
  dhmd-live serve --broker mqtt://broker.local             elsewhere, on as many machines as it takes

A stream takes about 17 kB a second, at one window a second. The server publishes its estimates; the edge publishes the
rest, such as its status, as `dhmd-live run` does.

exit status: 0 done, 1 something is not available, 2 the request is wrong, 3 the broker refuses the credentials.
"""

SERVE_EXAMPLES = """examples:
  dhmd-live serve --broker mqtt://broker.local
  dhmd-live serve --broker mqtt://broker.local --device cuda --group second

Serves the streams of all edges at the broker, together with the other servers of its group. The broker must speak
MQTT 5, as Mosquitto 2 does. More servers carry more streams; when one goes, the others take over its streams.

exit status: 0 done, 1 something is not available, 2 the request is wrong, 3 the broker refuses the credentials.
"""

WATCH_EXAMPLES = """examples:
  dhmd-live watch --broker mqtt://broker.local             every stream at the broker
  dhmd-live watch --broker mqtt://broker.local --stream hall
                                                           one of them; Ctrl-C ends it
  dhmd-live watch --broker mqtt://broker.local --page      all of them on a page, with their last hour

exit status: as for `dhmd-live run`.
"""

FORGET_EXAMPLES = """examples:
  dhmd-live forget hall --broker mqtt://broker.local       nothing of it is retained any more

exit status: as for `dhmd-live run`; 1 also for a stream that still runs.
"""


HEALTH_EXAMPLES = """examples:
  dhmd-live health --broker mqtt://broker.local --stream hall
  DHMD_BROKER=mqtt://broker.local DHMD_STREAM=hall dhmd-live health
                                                           as a container asks, which has both for its run

exit status: 0 the stream is online and its workers work, 1 not, 2 the request is wrong, 3 the broker refuses.
"""


def add_edge(commands: Commands) -> None:
    edge = commands.add_parser(
        "edge",
        help="capture and extract here; servers recognise",
        description="Capture and extract; publish feature windows, which `dhmd-live serve` turns into estimates.",
        epilog=EDGE_EXAMPLES,
    )
    edge.set_defaults(command=_edge, goes_on=True)
    add_config_flag(edge, hop_s=1.0)
    add_stream_flags(edge, hop="1")


def _edge(options: argparse.Namespace) -> int:
    settings = without_page(settings_of(options))

    from realtime.programs.edge import edge

    console = PlainConsole(stderr=settings.estimates == "-")
    summary = edge(settings, console)
    windows = summary.windows
    for line in (
        f"{windows.sent} windows sent, {windows.full} of them full, {summary.bytes_a_second / 1000:.1f} kB a second",
        f"{summary.estimates} estimates came back",
        f"dropped: {summary.dropped.video} frames, {summary.dropped.audio} blocks of sound",
        f"{summary.missed} windows found no broker, {windows.withheld} no server",
        f"words: {summary.transcript or 'none heard'}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def add_serve(commands: Commands) -> None:
    serve = commands.add_parser(
        "serve",
        help="recognise for the edges at a broker",
        description="Turn the feature windows of many edges into estimates, in batches.",
        epilog=SERVE_EXAMPLES,
    )
    serve.set_defaults(command=_serve, goes_on=True)
    add_config_flag(serve)
    add_broker_flags(serve, required=False)
    add_metrics_flags(serve)
    serve.add_argument("--group", metavar="NAME", help="who shares work (default: dhmd-serve)")
    serve.add_argument("--checkpoint", metavar="base|DIR", help="the model (default: base)")
    add_device_flag(serve)


def _serve(options: argparse.Namespace) -> int:
    from realtime.metrics.prometheus import exposed

    settings = settings_of(options)
    broker, console = _named_broker(settings), PlainConsole()

    from realtime.programs.serve import serve

    with exposed(settings.metrics_host, settings.metrics_port, console) as registry:
        return serve(broker, settings.group, settings.checkpoint, settings.device, console, registry)


def add_watch(commands: Commands) -> None:
    watch = commands.add_parser(
        "watch",
        help="show streams as they are published",
        description="Show streams as other programs receive them: a view in a terminal, lines elsewhere, or a page.",
        epilog=WATCH_EXAMPLES,
    )
    watch.set_defaults(command=_watch)
    add_broker_flags(watch)
    shown = watch.add_mutually_exclusive_group()
    shown.add_argument("--stream", metavar="NAME", default="+", help="name of one stream (default: all)")
    shown.add_argument("--page", action="store_true", help="serve a page of all streams and their last hour")
    add_address_flags(watch)


def _watch(options: argparse.Namespace) -> int:

    from realtime.messages.topics import check_stream_name
    from realtime.mqtt.broker import named_broker
    from realtime.programs.watch import watch, watch_all

    broker = named_broker(options.broker, access_of(options))
    if options.page:
        return watch_all(broker, address_of(address_settings(options), camera=False), PlainConsole())
    stream = options.stream if options.stream == "+" else check_stream_name(options.stream)
    return watch(broker, stream, PlainConsole())


def add_health(commands: Commands) -> None:
    health = commands.add_parser(
        "health",
        help="tell whether a stream is online, and all of it works",
        description="Ask the broker whether a stream is online, and all of its workers work.",
        epilog=HEALTH_EXAMPLES,
    )
    health.set_defaults(command=_health)
    add_config_flag(health)
    add_broker_flags(health, required=False)
    health.add_argument("--stream", metavar="NAME", help="name of the stream (default: default)")


def _health(options: argparse.Namespace) -> int:
    from realtime.programs.health import health

    settings = settings_of(options)
    print(plain(health(_named_broker(settings), settings.stream)))
    return 0


def _named_broker(settings: RunSettings) -> BrokerAddress:
    """Return the address of a broker that others reach, too. Raises SettingsInvalid."""
    from realtime.errors import SettingsInvalid
    from realtime.mqtt.broker import named_broker

    if settings.broker in {"none", "embedded"}:
        raise SettingsInvalid("--broker: this command meets others at one; give --broker mqtt://host[:port]")
    return named_broker(settings.broker, settings.access)


def add_forget(commands: Commands) -> None:
    forget = commands.add_parser(
        "forget",
        help="remove what a broker keeps of a stream that has ended",
        description="Remove all that a broker keeps of a stream that has ended, and its device from Home Assistant.",
        epilog=FORGET_EXAMPLES,
    )
    forget.set_defaults(command=_forget)
    forget.add_argument("stream", metavar="STREAM", help="name of the stream")
    add_broker_flags(forget)
    add_prefix_flag(forget)


def _forget(options: argparse.Namespace) -> int:
    from realtime.messages.topics import check_stream_name
    from realtime.mqtt.broker import named_broker
    from realtime.mqtt.discovery import PREFIX, forget

    broker, stream = named_broker(options.broker, access_of(options)), check_stream_name(options.stream)
    cleared = forget(broker, stream, options.discovery_prefix or PREFIX)
    print("\n".join(cleared) or f"{broker} keeps nothing of {stream}")
    return 0
