"""`dhmd-live`: the command."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from dhmd.errors import DHMDError
from realtime.memory import keep_freed_memory

if TYPE_CHECKING:
    from rich.console import Console

    from realtime.broker import BrokerAccess
    from realtime.run import Summary
    from realtime.settings import RunSettings
    from realtime.web.address import WebAddress
    from realtime.web.server import WebServer
    from realtime.web.viewers import Viewers

logger = logging.getLogger(__name__)

DESCRIPTION = (
    """Emotion of the person in front of the camera, from face, voice and words, ten times a second over MQTT."""
)

RUN_EXAMPLES = """examples:
  dhmd-live run                                            webcam and default microphone, embedded broker
  dhmd-live run --source camera:1 --microphone none        a second camera, no sound
  dhmd-live run --source talk.mp4                          a file at its own pace
  dhmd-live run --source talk.mp4 --pace max --broker none --estimates talk.jsonl
                                                           a file as fast as the machine allows
  dhmd-live run --source rtsp://camera.local/live --broker mqtts://me@broker.local --broker-password-file secret
                                                           user and password also by DHMD_BROKER_USER, ..._PASSWORD
  dhmd-live run --config configs/live.yaml                 the same keys from a file; flags override it

exit status: 0 done, 1 something is not available, 2 the request is wrong, 3 the broker refuses the credentials.
"""

EXPORT_EXAMPLES = """formats:
{formats}

examples:
  dhmd-live export talk.mcap --to html                     talk.html, a report to look at
  dhmd-live export talk.mcap --to parquet --out data/1.parquet
                                                           pandas.read_parquet("data/1.parquet")
  dhmd-live export talk.mcap --to srt --force              subtitles; the ones from before are replaced
  dhmd-live export talk.mcap --to jsonl                    what was published, one estimate a line

A session is recorded with `dhmd-live run --record talk.mcap`. One that was cut exports up to where it was cut.

exit status: 0 done, 1 no session or nothing in it to export, 2 the request is wrong.
"""

INFO_EXAMPLES = """examples:
  dhmd-live info talk.mcap
  dhmd-live info talk.mcap --json | jq .length_s

exit status: 0 done, 1 no session.
"""

REPAIR_EXAMPLES = """examples:
  dhmd-live repair talk.mcap                               talk.repaired.mcap, if talk.mcap needs it
  dhmd-live repair talk.mcap --out whole.mcap

A recording that is killed loses its last second and its index. Replay and export read it as it is; other programs may
want it repaired. The file itself is never changed.

exit status: 0 done or nothing to do, 1 no session or nothing of it left, 2 the request is wrong.
"""


WEB_EXAMPLES = """examples:
  dhmd-live web                                            a page that reads whoever opens it, by their own camera
  dhmd-live web --source camera:0                          webcam and microphone of this machine, shown on a page
  dhmd-live web --source talk.mp4                          a file
  dhmd-live web --host 0.0.0.0 --source rtsp://camera.local/live
                                                           for other machines: the address printed holds a token
  dhmd-live web --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem
                                                           the same over TLS: browsers give their camera to such a page
  openssl req -x509 -newkey rsa:2048 -nodes -days 365 -keyout key.pem -out cert.pem -subj /CN=dhmd \\
      -addext subjectAltName=DNS:$(hostname)               makes both files; browsers ask once whether to trust them

Without --source each visitor is a stream of their own: STREAM-1, STREAM-2, ... All flags of `dhmd-live run` apply;
those that belong to one stream (--microphone, --estimates, --record) need a --source.
"""

EDGE_EXAMPLES = """examples:
  dhmd-live edge --broker mqtt://broker.local --stream hall
                                                           webcam and microphone; no model runs here
  dhmd-live edge --broker mqtt://broker.local --stream hall --source rtsp://camera.local/live --hop 0.5
  dhmd-live serve --broker mqtt://broker.local             elsewhere, on as many machines as it takes

About 17 kB a second and stream, at one window a second. The estimates are published by who serves; the statuses of the
stream are ours, as with `dhmd-live run`.

exit status: 0 done, 1 something is not available, 2 the request is wrong, 3 the broker refuses the credentials.
"""

SERVE_EXAMPLES = """examples:
  dhmd-live serve --broker mqtt://broker.local
  dhmd-live serve --broker mqtt://broker.local --device cuda --group second

Serves the streams of all edges at the broker, together with all other servers of its group; needs MQTT 5 there, as
Mosquitto 2 has it. More servers carry more streams. One that goes leaves its streams to the others.

exit status: 0 done, 1 something is not available, 2 the request is wrong, 3 the broker refuses the credentials.
"""

REPLAY_EXAMPLES = """examples:
  dhmd-live run --record talk.mcap                         record a session: features, words, estimates
  dhmd-live replay talk.mcap --verify                      does the same model say the same again?
  dhmd-live replay talk.mcap --broker mqtt://localhost     publish it again, at the pace it had
  dhmd-live replay talk.mcap --checkpoint DIR --plot two.png
                                                           another model on the same session, side by side
  dhmd-live replay talk.mcap --again                       from recorded pictures and sound, features anew
  dhmd-live replay films/ --out sessions/ --jobs 4         every media file becomes a session; goes on where it was cut

exit status: as of `dhmd-live run`; 1 too where --verify finds a difference.
"""


def program() -> NoReturn:
    """The process `dhmd-live`: `main`, and out without taking the interpreter down.

    Threads may still be deep in native code (a model that loads, a camera that hangs); finalising under them aborts.
    """
    try:
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and exit with its status."""
    options = _parser().parse_args(arguments)
    # The pipeline's own threads fill the cores: a BLAS thread that spins beside them takes a third of one for nothing.
    os.environ.update(OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_NUM_THREADS="1")
    keep_freed_memory()
    # Fewer messages of the libraries underneath.
    os.environ.update(GLOG_minloglevel="2", TF_CPP_MIN_LOG_LEVEL="3")
    _set_up_logging(verbose=options.verbose)
    command: Callable[[argparse.Namespace], int] = options.command
    if getattr(options, "broker", None):
        _warn_of_password(options)
    try:
        code = command(options)
    except KeyboardInterrupt:
        code = 130
    except BaseException as error:
        known = _known(error)
        if known is None:
            raise
        for line in str(known).splitlines():
            print(f"error: {line}", file=sys.stderr)
        code = known.exit_code
    sys.exit(code)


def _known(error: BaseException) -> DHMDError | None:
    """The error that has a line for people: itself, or the first such one in a group; None for a fault of ours."""
    if isinstance(error, BaseExceptionGroup):
        return next((known for part in error.exceptions if (known := _known(part))), None)
    return error if isinstance(error, DHMDError) else None


class _Parser(argparse.ArgumentParser):
    """Complains in one line, as everything else here, and shows its examples as they are written."""

    def __init__(self, **about: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **about)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="dhmd-live", description=DESCRIPTION)
    parser.add_argument("--verbose", action="store_true", help="tell what happens inside")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="recognise live or from a file, and publish",
        description="Recognise a person's emotion live or from a file, and publish it.",
        epilog=RUN_EXAMPLES,
    )
    run.set_defaults(command=_run)
    _add_run_flags(run)

    demo = commands.add_parser("demo", help="play the demo clip through the whole pipeline, with an embedded broker")
    demo.set_defaults(command=_demo)
    _add_record_flags(demo)
    _add_metrics_flags(demo)

    web = commands.add_parser(
        "web",
        help="recognise, and show it on a page",
        description="Serve a page that reads whoever opens it, or one that shows what `dhmd-live run` would recognise.",
        epilog=WEB_EXAMPLES,
    )
    web.set_defaults(command=_web)
    web.add_argument("--host", default="127.0.0.1", help="address to serve on (default: %(default)s, no other machine)")
    web.add_argument("--port", type=int, default=8765, help="0: a free one (default: %(default)s)")
    web.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve over TLS with this certificate (PEM)")
    web.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's private key (PEM)")
    web.add_argument(
        "--max-streams",
        type=_positive,
        metavar="N",
        help="visitors at a time (default: as many as this machine can follow, measured at the start)",
    )
    _add_run_flags(web, source="browser, that of each visitor")

    _add_scale_commands(commands)

    replay = commands.add_parser(
        "replay",
        help="run recorded sessions through a model again",
        description="Replay a recorded session: to a broker, to a file, to verify it, or to compare another model.",
        epilog=REPLAY_EXAMPLES,
    )
    replay.set_defaults(command=_replay)
    _add_replay_flags(replay)

    watch = commands.add_parser("watch", help="print a stream readably as it is published")
    watch.set_defaults(command=_watch)
    watch.add_argument("--broker", required=True, metavar="URL", help="mqtt[s]://[user@]host[:port]")
    _add_access_flags(watch)
    watch.add_argument("--stream", default="+", help="name of one stream; all without it")

    forget = commands.add_parser(
        "forget",
        help="remove what a broker keeps of a stream that ended",
        description="Remove all that a broker keeps of a stream that ended; takes its device out of Home Assistant.",
    )
    forget.set_defaults(command=_forget)
    forget.add_argument("stream", metavar="STREAM")
    forget.add_argument("--broker", required=True, metavar="URL", help="mqtt[s]://[user@]host[:port]")
    _add_access_flags(forget)
    _add_prefix_flag(forget)

    _add_session_commands(commands)

    devices = commands.add_parser("devices", help="list cameras, microphones and compute devices")
    devices.set_defaults(command=_devices)

    doctor = commands.add_parser("doctor", help="check that everything a run needs is here")
    doctor.set_defaults(command=_doctor)

    assets = commands.add_parser("assets", help="list, fetch and verify third-party weights")
    assets.set_defaults(command=_assets)
    assets.add_argument("action", nargs="?", choices=["list", "fetch", "verify"], default="list")

    bench = commands.add_parser("bench", help="measure rate, latency, start-up and memory on this machine")
    bench.set_defaults(command=_bench)
    bench.add_argument("--seconds", type=float, default=300.0, help="length of the run (default: %(default)g)")
    return parser


def _add_scale_commands(commands: argparse._SubParsersAction[_Parser]) -> None:
    edge = commands.add_parser(
        "edge",
        help="capture and extract here, have servers recognise",
        description="Capture and extract; publish feature windows, which `dhmd-live serve` turns into estimates.",
        epilog=EDGE_EXAMPLES,
    )
    edge.set_defaults(command=_edge)
    _add_stream_flags(edge, hop="1")
    serve = commands.add_parser(
        "serve",
        help="recognise for the edges at a broker",
        description="Turn the feature windows of many edges into estimates, in batches.",
        epilog=SERVE_EXAMPLES,
    )
    serve.set_defaults(command=_serve)
    serve.add_argument("--broker", required=True, metavar="URL", help="mqtt[s]://[user@]host[:port]")
    _add_access_flags(serve)
    _add_metrics_flags(serve)
    serve.add_argument("--group", default="dhmd-serve", metavar="NAME", help="who shares work (default: %(default)s)")
    serve.add_argument("--checkpoint", default="base", metavar="base|DIR", help="the model (default: %(default)s)")
    serve.add_argument("--device", default="auto", metavar="auto|cpu|cuda", help="where it runs (default: auto)")


def _add_run_flags(run: argparse.ArgumentParser, source: str = "camera:0") -> None:
    """One flag a key of RunSettings, without defaults: what is not given is left to the file and the settings."""
    _add_stream_flags(run, hop="0.1", source=source, brokers="URL|embedded|none")
    _add_record_flags(run)
    run.add_argument("--device", metavar="auto|cpu|cuda", help="where the model runs (default: auto)")


def _add_stream_flags(run: argparse.ArgumentParser, hop: str, source: str = "camera:0", brokers: str = "URL") -> None:
    """Those of a source and its stream."""
    run.add_argument("--config", type=Path, metavar="FILE", help="YAML file with these keys; flags override it")
    run.add_argument(
        "--source",
        metavar="PATH|URL|camera:N|none",
        help=f"media file, camera:N, /dev/videoN, rtsp:// or http:// stream (default: {source})",
    )
    run.add_argument(
        "--microphone",
        metavar="NAME|default|none",
        help="see `dhmd-live devices` (default: the default one with a camera; with a file, the file's own sound)",
    )
    run.add_argument("--pace", choices=["realtime", "max"], help="max: a file as fast as possible (default: realtime)")
    run.add_argument(
        "--broker",
        metavar=brokers,
        help="mqtt[s]://[user@]host[:port]"
        + (", embedded on loopback, or none (default: embedded)" if "embedded" in brokers else ""),
    )
    _add_access_flags(run)
    run.add_argument("--stream", metavar="NAME", help="topics are dhmd/NAME/... (default: default)")
    run.add_argument(
        "--state", action="store_true", default=None, help="publish single values too, retained: dhmd/NAME/state/..."
    )
    run.add_argument(
        "--discovery",
        action="store_true",
        default=None,
        help="announce the stream to Home Assistant (adds --state); `dhmd-live forget` takes it back",
    )
    _add_prefix_flag(run)
    run.add_argument("--estimates", metavar="FILE", help="also write the estimates here, one JSON object a line")
    run.add_argument(
        "--allow-control", action="store_true", default=None, help="carry out commands that come on dhmd/NAME/set/..."
    )
    run.add_argument("--record-dir", metavar="DIR", help="where recordings go that are begun by command")
    _add_metrics_flags(run)
    run.add_argument("--duration", type=float, metavar="S", help="stop after so many seconds")
    run.add_argument("--checkpoint", metavar="base|DIR", help="the model (default: base, which ships here)")
    run.add_argument("--hop", type=float, dest="hop_s", metavar="S", help=f"seconds between estimates (default: {hop})")


def _add_access_flags(command: argparse.ArgumentParser) -> None:
    """What it takes to be let in by a broker. A password itself has no place among a process's arguments."""
    command.add_argument(
        "--broker-ca", metavar="FILE", help="CA of the broker's certificate, PEM (default: the system's)"
    )
    command.add_argument("--broker-cert", metavar="FILE", help="our own certificate, PEM")
    command.add_argument("--broker-key", metavar="FILE", help="its key, PEM, if it is not in the same file")
    command.add_argument(
        "--broker-password-file",
        metavar="FILE",
        help="its first line is the password; or set DHMD_BROKER_USER and DHMD_BROKER_PASSWORD",
    )


def _add_metrics_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--metrics-port", type=int, metavar="PORT", help="answer Prometheus on this port of 127.0.0.1; 0: a free one"
    )
    command.add_argument("--metrics-host", metavar="ADDRESS", help="answer on this address instead: 0.0.0.0 for all")


def _access(options: argparse.Namespace) -> BrokerAccess:
    from realtime.broker import BrokerAccess

    return BrokerAccess(options.broker_ca, options.broker_cert, options.broker_key, options.broker_password_file)


def _warn_of_password(options: argparse.Namespace) -> None:
    """Other users of the machine can read the arguments of its processes."""
    from realtime.broker import BrokerAddress
    from realtime.errors import SettingsInvalid

    with contextlib.suppress(SettingsInvalid):
        if BrokerAddress.parse(getattr(options, "broker", None) or "").password is not None:
            logging.getLogger(__name__).warning(
                "--broker: a password among the arguments can be read by others on this machine; "
                "use DHMD_BROKER_PASSWORD or --broker-password-file"
            )


def _add_prefix_flag(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--discovery-prefix", metavar="TOPIC", help="where Home Assistant looks for devices (default: homeassistant)"
    )


def _add_session_commands(commands: argparse._SubParsersAction[_Parser]) -> None:
    from realtime.session.export.formats import FORMATS

    def command(name: str, run: Callable[[argparse.Namespace], int], summary: str, examples: str) -> _Parser:
        parser = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=examples,
        )
        parser.set_defaults(command=run)
        parser.add_argument("file", type=Path, metavar="FILE", help="a recorded session (.mcap)")
        return parser

    formats = "\n".join(f"  {name:<10} {one.what}" for name, one in FORMATS.items())
    export = command("export", _export, "write a session in another format", EXPORT_EXAMPLES.format(formats=formats))
    export.add_argument("--to", required=True, choices=list(FORMATS), metavar="FORMAT", help=", ".join(FORMATS))
    info = command("info", _info, "say what is in a session", INFO_EXAMPLES)
    info.add_argument("--json", action="store_true", help="the same for programs")
    repair = command("repair", _repair, "make a whole file of a session that was cut", REPAIR_EXAMPLES)
    for parser, default in ((export, "FILE with the format's suffix"), (repair, "FILE.repaired.mcap")):
        parser.add_argument("--out", type=Path, metavar="PATH", help=f"where to write it (default: {default})")
        parser.add_argument("--force", action="store_true", help="replace what is there")


def _add_record_flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("--record", metavar="FILE.mcap", help="record features, words and estimates; no media")
    command.add_argument("--record-video", action="store_true", default=None, help="record the pictures too")
    command.add_argument("--record-audio", action="store_true", default=None, help="record the sound too")


def _add_replay_flags(replay: argparse.ArgumentParser) -> None:
    replay.add_argument("paths", type=Path, nargs="+", metavar="FILE", help="one session; or media files and folders")
    replay.add_argument(
        "--pace",
        type=_pace,
        default=None,
        metavar="realtime|max|N",
        help="as it was, as fast as possible, or N times as fast (default: realtime with --broker or --web, else max)",
    )
    replay.add_argument("--verify", action="store_true", help="fail unless the model says again what was recorded")
    replay.add_argument("--checkpoint", metavar="base|DIR", help="another model, compared with what was recorded")
    replay.add_argument("--again", action="store_true", help="extract the features again, from recorded media")
    replay.add_argument("--out", type=Path, metavar="DIR", help="folder for sessions of media (default: beside them)")
    replay.add_argument("--jobs", type=int, metavar="N", help="media files at a time (default: one for two cores)")
    replay.add_argument("--plot", type=Path, metavar="FILE.png", help="picture of the comparison")
    replay.add_argument("--broker", default="none", metavar="URL", help="publish to mqtt[s]://[user@]host[:port]")
    _add_access_flags(replay)
    replay.add_argument("--web", action="store_true", help="show it on a page, at the pace it had")
    replay.add_argument("--stream", metavar="NAME", help="stream to publish as (default: the recorded one)")
    replay.add_argument("--estimates", metavar="FILE", help="write the estimates here, one JSON object a line")
    replay.add_argument("--device", default="auto", metavar="auto|cpu|cuda", help="compute device (default: auto)")


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return int(text)


def _pace(text: str) -> float:
    """Session seconds a second; infinite for max."""
    named = {"realtime": 1.0, "max": float("inf")}
    try:
        pace = named[text] if text in named else float(text)
    except ValueError:
        pace = 0.0
    if not pace > 0:
        raise argparse.ArgumentTypeError(f"expected realtime, max, or a number above 0, found {text!r}")
    return pace


def _replay(options: argparse.Namespace) -> int:
    from realtime.errors import SettingsInvalid
    from realtime.mqtt import check_stream_name
    from realtime.session.player import Request, replay

    sessions = [path for path in options.paths if path.suffix == ".mcap"]
    if not sessions and not (len(options.paths) == 1 and _begins_as_session(options.paths[0])):
        return _replay_media(options)
    if len(options.paths) > 1:
        raise SettingsInvalid("one session at a time, or media files and folders alone")
    watched = options.web or options.broker != "none"
    pace = options.pace or (1.0 if watched else float("inf"))
    if options.web and (options.again or pace == float("inf")):
        raise SettingsInvalid("--web shows a replay at a pace; leave --again and --pace max out")
    stream = None if options.stream is None else check_stream_name(options.stream)
    request = Request(
        path=options.paths[0],
        pace=None if pace == float("inf") else pace,
        verify=options.verify,
        checkpoint=options.checkpoint,
        again=options.again,
        broker=options.broker,
        access=_access(options),
        stream=stream,
        estimates=options.estimates,
        plot=options.plot,
        web=_page(stream or options.paths[0].stem) if options.web else None,
        device=options.device,
    )
    return replay(request, _console())


def _begins_as_session(path: Path) -> bool:
    from dhmd.session.reader import MAGIC

    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _replay_media(options: argparse.Namespace) -> int:
    from realtime.session.batch import process

    return process(
        options.paths,
        out=options.out,
        checkpoint=options.checkpoint or "base",
        jobs=options.jobs or max(1, (os.cpu_count() or 2) // 2),
        console=_console(),
    )


def _settings(options: argparse.Namespace, **defaults: object) -> RunSettings:
    """What was asked for, as far as the command has flags for it, over the command's own defaults."""
    from realtime.settings import RunSettings, read_settings

    flags = {name: value for name in RunSettings.model_fields if (value := getattr(options, name, None)) is not None}
    return read_settings(getattr(options, "config", None), flags, defaults)


def _without_page(settings: RunSettings) -> RunSettings:
    """For commands that serve no page. Raises SettingsInvalid where a visitor's camera is asked for."""
    from realtime.errors import SettingsInvalid
    from realtime.settings import BROWSER

    if settings.source == BROWSER:
        raise SettingsInvalid("--source browser: a browser's camera needs a page; use dhmd-live web")
    return settings


def _run(options: argparse.Namespace) -> int:
    settings = _without_page(_settings(options))
    from realtime.run import run

    console = _console()
    _print_summary(run(settings, console), console)
    return 0


def _page(stream: str, address: WebAddress | None = None) -> WebServer[Viewers]:
    """For pages that look at one stream; by default on loopback, on a free port."""
    from realtime.web.address import WebAddress
    from realtime.web.feed import Feed
    from realtime.web.server import WebServer
    from realtime.web.viewers import Viewers

    return WebServer(Viewers(Feed(stream)), address or WebAddress.of("127.0.0.1", 0))


def _address(options: argparse.Namespace) -> WebAddress:
    from realtime.web.address import WebAddress
    from realtime.web.certificate import Certificate

    address = WebAddress.of(options.host, options.port, Certificate.of(options.tls_cert, options.tls_key))
    if not address.is_secure:
        logger.warning(
            "browsers give a camera only to secure pages: on other machines this one has none; serve it over TLS with "
            "--tls-cert and --tls-key"
        )
    return address


def _web(options: argparse.Namespace) -> int:
    from realtime.settings import BROWSER

    settings = _settings(options, source=BROWSER)
    address = _address(options)
    console = _console()
    if settings.source == BROWSER:
        from realtime.web.host import host

        served = host(settings, address, options.max_streams, console)
        console.print(f"{served.visits} {'visit' if served.visits == 1 else 'visits'}", highlight=False)
        return 0
    from realtime.run import run

    _print_summary(run(settings, console, web=_page(settings.stream, address)), console)
    return 0


def _edge(options: argparse.Namespace) -> int:
    settings = _without_page(_settings(options, hop_s=1.0))
    from realtime.scale.edge import edge

    console = _console()
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


def _serve(options: argparse.Namespace) -> int:
    from realtime.broker import named_broker
    from realtime.prometheus import exposed
    from realtime.scale.serve import serve
    from realtime.scale.topics import check_group_name

    broker, group = named_broker(options.broker, _access(options)), check_group_name(options.group)
    console = _console()
    with exposed(options.metrics_host, options.metrics_port, console) as registry:
        return serve(broker, group, options.checkpoint, options.device, console, registry)


def _demo(options: argparse.Namespace) -> int:
    from realtime.demo import CLIP

    settings = _settings(options, source=str(CLIP), stream="demo")
    from realtime.run import run

    console = _console()
    summary = run(settings, console, title="dhmd demo", web=_page(settings.stream))
    _print_summary(summary, console)
    return 0


def _export(options: argparse.Namespace) -> int:
    from realtime.session.export.write import export

    print(export(options.file, options.to, options.out, force=options.force))
    return 0


def _info(options: argparse.Namespace) -> int:
    from realtime.session.info import show_info

    return show_info(options.file, _console(), as_json=options.json)


def _repair(options: argparse.Namespace) -> int:
    from realtime.session.repair import repair

    repaired = repair(options.file, options.out, force=options.force)
    if repaired is None:
        print(f"{options.file}: whole; nothing to repair")
    else:
        print(f"{repaired.out}: {repaired.messages} messages saved, up to {repaired.last_s:.1f} s")
    return 0


def _watch(options: argparse.Namespace) -> int:
    from realtime.broker import named_broker
    from realtime.mqtt import check_stream_name
    from realtime.watch import watch

    stream = options.stream if options.stream == "+" else check_stream_name(options.stream)
    return watch(named_broker(options.broker, _access(options)), stream, _console())


def _forget(options: argparse.Namespace) -> int:
    from realtime.broker import named_broker
    from realtime.mqtt import check_stream_name
    from realtime.mqtt.discovery import PREFIX, forget

    broker, stream = named_broker(options.broker, _access(options)), check_stream_name(options.stream)
    cleared = forget(broker, stream, options.discovery_prefix or PREFIX)
    print("\n".join(cleared) or f"{broker} keeps nothing of {stream}")
    return 0


def _devices(_: argparse.Namespace) -> int:
    from realtime.doctor import show_devices

    return show_devices(_console())


def _doctor(_: argparse.Namespace) -> int:
    from realtime.doctor import show_checks

    return show_checks(_console())


def _assets(options: argparse.Namespace) -> int:
    from realtime.doctor import show_assets

    return show_assets(options.action, _console())


def _bench(options: argparse.Namespace) -> int:
    from realtime.bench import bench

    return bench(options.seconds, _console())


def _console() -> Console:
    from rich.console import Console

    return Console()


class _Lines(logging.Handler):
    """One line a message on stderr, found anew each time: a live view puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


def _set_up_logging(*, verbose: bool) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[_Lines()], format="%(message)s")


def _print_summary(summary: Summary, console: Console) -> None:
    from rich.table import Table

    from realtime.pipeline import percentiles

    statistics = summary.statistics
    table = Table(title="summary", show_header=False, box=None, padding=(0, 2), title_justify="left")
    table.add_row("estimates", f"{statistics.estimates} at {statistics.rate_hz:.1f} per second")
    for name, values in (
        ("capture to estimate", statistics.capture_to_estimate_ms),
        ("capture to published", statistics.capture_to_published_ms),
        ("model", statistics.inference_ms),
    ):
        if measured := percentiles(values):
            table.add_row(name, f"p50 {measured[0]:.0f} ms, p95 {measured[1]:.0f} ms")
    if summary.first_estimate_s is not None:
        table.add_row("first estimate", f"{summary.first_estimate_s:.1f} s after start")
    missed = f", {statistics.missed_ticks} ticks missed" if statistics.missed_ticks else ", no tick missed"
    table.add_row("dropped", f"{summary.dropped.video} frames, {summary.dropped.audio} blocks of sound{missed}")
    if summary.undelivered:
        table.add_row("undelivered", f"{summary.undelivered} estimates found no broker")
    table.add_row("words", summary.words or "none heard")
    console.print(table)
