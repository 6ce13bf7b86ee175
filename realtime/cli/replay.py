"""`replay`: recorded sessions through a model again."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from dhmd.command_line import Commands
from realtime.cli.flags import (
    access_of,
    add_access_flags,
    add_device_flag,
    add_people_flag,
    add_speech_flags,
    add_steadiness_flags,
    steadiness_of,
)
from realtime.cli.output import PlainConsole
from realtime.cli.page import add_address_flags, address_of, address_settings

EXAMPLES = """examples:
  dhmd-live run --record talk.mcap                         record a session: features, words, estimates
  dhmd-live replay talk.mcap --verify                      does the same model say the same again?
  dhmd-live replay talk.mcap --broker mqtt://localhost     publish it again, at its own pace
  dhmd-live replay talk.mcap walk.mcap --web               play them on a page; a folder of sessions is as good
  dhmd-live replay talk.mcap --checkpoint DIR --plot two.png
                                                           another model on the same session, side by side
  dhmd-live replay talk.mcap --again                       extract the features again, from recorded media
  dhmd-live replay films/ --out sessions/ --jobs 4         every media file becomes a session; resumes after an
                                                           interruption
  dhmd-live replay films/ --speech base --checkpoint multilingual
                                                           the same of films in many languages

exit status: as for `dhmd-live run`; 1 also when --verify finds a difference.
"""


def add_replay(commands: Commands) -> None:
    replay = commands.add_parser(
        "replay",
        help="run recorded sessions through a model again",
        description="Replay a recorded session: to a broker, to a file, to verify it, or to compare another model.",
        epilog=EXAMPLES,
    )
    replay.set_defaults(command=_replay)
    replay.add_argument("paths", type=Path, nargs="+", metavar="FILE", help="one session; or media files and folders")
    what = replay.add_argument_group("how it is replayed")
    what.add_argument(
        "--pace",
        type=_pace,
        default=None,
        metavar="realtime|max|N",
        help="its own, as fast as possible, or N times its own (default: realtime with --broker, else max)",
    )
    what.add_argument("--again", action="store_true", help="extract the features again, from recorded media")
    what.add_argument("--out", type=Path, metavar="DIR", help="folder for sessions of media (default: beside them)")
    what.add_argument("--jobs", type=int, metavar="N", help="media files at a time (default: one per two cores)")
    films = replay.add_argument_group("how media are read")
    add_people_flag(films)
    add_speech_flags(films)
    model = replay.add_argument_group("the model and its answer")
    model.add_argument("--checkpoint", metavar="base|DIR", help="another model (default: that of the recording)")
    add_device_flag(model)
    add_steadiness_flags(model)
    compared = replay.add_argument_group("what is compared")
    compared.add_argument("--verify", action="store_true", help="fail unless the model says what was recorded")
    compared.add_argument("--plot", type=Path, metavar="FILE.png", help="picture of two models, side by side")
    out = replay.add_argument_group("where it goes")
    out.add_argument(
        "--broker", default="none", metavar="URL|none", help="mqtt[s]://[user@]host[:port] (default: none)"
    )
    add_access_flags(out)
    out.add_argument("--web", action="store_true", help="a player on a page, for sessions and folders of them")
    add_address_flags(replay)
    out.add_argument("--stream", metavar="NAME", help="stream to publish as (default: the recorded one)")
    out.add_argument(
        "--estimates", metavar="FILE", help="write the estimates here, one JSON object a line; - for standard output"
    )


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
    from realtime.messages.topics import check_stream_name
    from realtime.programs.replay import ReplaySettings, replay
    from realtime.settings import HEARD_BY

    if options.web:
        return _play(options)
    sessions = [path for path in options.paths if path.suffix == ".mcap"]
    if not sessions and not (len(options.paths) == 1 and _begins_as_session(options.paths[0])):
        return _replay_media(options)
    if len(options.paths) > 1:
        raise SettingsInvalid("one session at a time, or media files and folders alone")
    if options.people is not None:
        raise SettingsInvalid("--people: a session has the people it was recorded with; it goes with media files")
    heard = {name: value for name in HEARD_BY if (value := getattr(options, name)) is not None}
    if heard and not options.again:
        flag = next(iter(heard)).replace("_", "-")
        raise SettingsInvalid(f"--{flag}: a session has the words that were recorded; add --again, or name media files")
    pace = options.pace or (1.0 if options.broker != "none" else float("inf"))
    stream = None if options.stream is None else check_stream_name(options.stream)
    request = ReplaySettings(
        path=options.paths[0],
        pace=None if pace == float("inf") else pace,
        verify=options.verify,
        checkpoint=options.checkpoint,
        again=options.again,
        broker=options.broker,
        access=access_of(options),
        stream=stream,
        estimates=options.estimates,
        plot=options.plot,
        device=options.device or "auto",
        steadiness=steadiness_of(options),
        heard=heard,
    )
    return replay(request, PlainConsole(stderr=options.estimates == "-"))


def _play(options: argparse.Namespace) -> int:
    """The player shows what was recorded; what makes something else of it has no place beside it."""
    from realtime.errors import SettingsInvalid
    from realtime.programs.player import play
    from realtime.settings import HEARD_BY

    makes_another = ("pace", "verify", "checkpoint", "again", "out", "jobs", "plot", "stream", "estimates")
    for name in ("people", *HEARD_BY, *makes_another):
        if getattr(options, name):
            raise SettingsInvalid(
                f"--{name.replace('_', '-')}: --web plays sessions as they were recorded; leave one of the two out"
            )
    if options.broker != "none":
        raise SettingsInvalid("--broker: --web plays to those who look at the page; leave one of the two out")
    play(options.paths, address_of(address_settings(options), camera=False), steadiness_of(options), PlainConsole())
    return 0


def _begins_as_session(path: Path) -> bool:
    from dhmd.session.reader import MAGIC

    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def _replay_media(options: argparse.Namespace) -> int:

    from realtime.layers import read_settings
    from realtime.programs.films import process
    from realtime.settings import HEARD_BY

    names = ("checkpoint", "smoothing_s", "margin", "people", *HEARD_BY)
    asked = {name: value for name in names if (value := getattr(options, name)) is not None}
    return process(
        options.paths,
        read_settings(None, {"source": str(options.paths[0]), "pace": "max", "broker": "none", **asked}),
        out=options.out,
        jobs=options.jobs or max(1, (os.cpu_count() or 2) // 2),
        console=PlainConsole(),
    )
