"""`run`, `demo`, `web`: recognise now."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from dhmd.command_line import Commands
from realtime.cli.flags import (
    add_metrics_flags,
    add_outlet_flags,
    add_people_flag,
    add_record_flags,
    add_run_flags,
    add_speech_flags,
    layers_of,
    settings_of,
    without_page,
)
from realtime.cli.output import PlainConsole
from realtime.cli.page import add_address_flags, address_of, page_of

if TYPE_CHECKING:
    from realtime.programs.running import Summary
    from realtime.settings import RunSettings

RUN_EXAMPLES = """examples:
  dhmd-live run                                            webcam and default microphone, embedded broker
  dhmd-live run --source camera:1 --microphone none        a second camera, no sound
  dhmd-live run --source talk.mp4                          a file at its own pace
  dhmd-live run --source talk.mp4 --pace max --broker none --estimates talk.jsonl
                                                           a file as fast as the machine allows
  dhmd-live run --source rtsp://camera.local/live --broker mqtts://me@broker.local --broker-password-file secret
                                                           or by DHMD_BROKER_USER and DHMD_BROKER_PASSWORD
  dhmd-live run --source interview.mp4 --people 2          each person has an estimate of their own
  dhmd-live run --osc 127.0.0.1:9000 --lsl                 also to programs of stages and laboratories
  dhmd-live run --config configs/live.yaml                 the same keys from a file; flags override it
  dhmd-live run --config configs/rooms.yaml                several streams in one process, which share the models

exit status: 0 done, 1 something is not available, 2 the request is wrong, 3 the broker refuses the credentials.
"""

DEMO_EXAMPLES = """examples:
  dhmd-live demo                                           half a minute; prints its page and its broker
  dhmd-live demo --record demo.mcap                        a session to try export, replay and training on
  dhmd-live demo --osc 127.0.0.1:9000                      also to a program that listens to Open Sound Control

exit status: as for `dhmd-live run`.
"""

WEB_EXAMPLES = """examples:
  dhmd-live web                                            a page that reads whoever opens it, by their own camera
  dhmd-live web --source camera:0                          webcam and microphone of this machine, shown on a page
  dhmd-live web --source talk.mp4                          a file
  dhmd-live web --host 0.0.0.0 --source rtsp://camera.local/live
                                                           for other machines; the address it prints holds a token
  dhmd-live web --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem
                                                           over TLS, without which browsers keep their camera shut
  openssl req -x509 -newkey rsa:2048 -nodes -days 365 -keyout key.pem -out cert.pem -subj /CN=dhmd \\
      -addext subjectAltName=DNS:$(hostname)               makes both files; browsers ask once whether to trust them

Without --source each visitor has a stream of their own: STREAM-1, STREAM-2, ... All flags of `dhmd-live run` apply;
those of a single stream (--microphone, --estimates, --record) need a --source.
"""


def add_run(commands: Commands) -> None:
    run = commands.add_parser(
        "run",
        help="recognise live or from a file, and publish",
        description="Recognise the emotion that a person shows, live or from a file, and publish it.",
        epilog=RUN_EXAMPLES,
    )
    run.set_defaults(command=_run, goes_on=True)
    add_run_flags(run)


def _run(options: argparse.Namespace) -> int:
    from realtime.layers import each_stream

    if streams := each_stream(layers_of(options)):
        return _run_several([without_page(one) for one in streams], options)
    settings = without_page(settings_of(options))

    from realtime.programs.run import run

    # Standard output is the estimates' alone where they are written to it.
    console = PlainConsole(stderr=settings.estimates == "-")
    _show(run(settings, console, reread=lambda: [settings_of(options)]), console)
    return 0


def _run_several(streams: list[RunSettings], options: argparse.Namespace) -> int:
    from realtime.layers import each_stream
    from realtime.programs.several import run_several

    console = PlainConsole(stderr=any(one.estimates == "-" for one in streams))
    summaries = run_several(streams, console, reread=lambda: each_stream(layers_of(options)))
    for name, summary in summaries.items():
        _show(summary, console, title=name)
    return 0 if len(summaries) == len(streams) else 1


def add_demo(commands: Commands) -> None:
    demo = commands.add_parser(
        "demo",
        help="play the demo clip through the whole pipeline",
        description="Play the demo clip through the whole pipeline: in the terminal, on a page, over MQTT.",
        epilog=DEMO_EXAMPLES,
    )
    demo.set_defaults(command=_demo, goes_on=True)
    add_speech_flags(demo.add_argument_group("what is perceived"))
    add_record_flags(demo)
    add_people_flag(demo)
    out = demo.add_argument_group("where it goes")
    add_outlet_flags(out)
    add_metrics_flags(out)


def _demo(options: argparse.Namespace) -> int:
    from realtime.demo import CLIP

    settings = settings_of(options, source=str(CLIP), stream="demo")

    from realtime.programs.run import run

    console = PlainConsole()
    _show(run(settings, console, title="dhmd demo", web=page_of(settings.stream)), console)
    return 0


def add_web(commands: Commands) -> None:
    web = commands.add_parser(
        "web",
        help="recognise, and show it on a page",
        description="Serve a page that reads whoever opens it, or one that shows what `dhmd-live run` would recognise.",
        epilog=WEB_EXAMPLES,
    )
    web.set_defaults(command=_web, goes_on=True)
    page = add_address_flags(web)
    page.add_argument(
        "--proxy",
        metavar="ADDRESS",
        help="a proxy that lets in whom it knows: only it is answered, and no token is asked",
    )
    page.add_argument(
        "--max-streams",
        type=_positive,
        metavar="N",
        help="most visitors at a time (default: what this machine can follow, measured at the start)",
    )
    add_run_flags(web, source="browser, that of each visitor", below={"source": "browser"})


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)


def _web(options: argparse.Namespace) -> int:
    from realtime.settings import BROWSER

    settings = settings_of(options)
    address = address_of(settings)

    console = PlainConsole()
    if settings.source == BROWSER:
        from realtime.programs.visitors import host

        visits = host(settings, address, settings.max_streams, console)
        console.print(f"{visits} {'visit' if visits == 1 else 'visits'}", highlight=False)
        return 0
    from realtime.programs.run import run

    page = page_of(settings.stream, address)
    _show(run(settings, console, web=page, reread=lambda: [settings_of(options)]), console)
    return 0


def _show(summary: Summary, console: PlainConsole, title: str = "summary") -> None:
    from rich.table import Table

    from realtime.percentiles import percentiles

    statistics = summary.statistics
    table = Table(title=title, show_header=False, box=None, padding=(0, 2), title_justify="left")
    table.add_row("estimates", f"{statistics.estimates} at {statistics.rate_hz:.1f} per second")
    for name, values in (
        ("capture to estimate", statistics.capture_to_estimate_ms),
        ("capture to published", statistics.capture_to_published_ms),
        ("model", statistics.inference_ms),
    ):
        if measured := percentiles(values):
            table.add_row(name, f"p50 {measured.p50:.0f} ms, p95 {measured.p95:.0f} ms")
    if summary.first_estimate_s is not None:
        table.add_row("first estimate", f"{summary.first_estimate_s:.1f} s after start")
    missed = f", {statistics.missed_ticks} ticks missed" if statistics.missed_ticks else ", no tick missed"
    table.add_row("dropped", f"{summary.dropped.video} frames, {summary.dropped.audio} blocks of sound{missed}")
    if summary.undelivered:
        table.add_row("undelivered", f"{summary.undelivered} estimates found no broker")
    table.add_row("words", summary.words or "none heard")
    console.print(table)
