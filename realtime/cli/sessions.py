"""`export`, `info`, `repair`: what becomes of a recorded session."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from dhmd.command_line import Commands, Parser
from realtime.cli.output import PlainConsole

EXPORT_EXAMPLES = """formats:
{formats}

examples:
  dhmd-live export talk.mcap --to html                     talk.html, a report to look at
  dhmd-live export talk.mcap --to html --language de       the same in German
  dhmd-live export talk.mcap --to parquet --out data/1.parquet
                                                           pandas.read_parquet("data/1.parquet")
  dhmd-live export talk.mcap --to srt --force              subtitles; replaces those that are there
  dhmd-live export talk.mcap --to jsonl                    what was published, one estimate a line
  dhmd-live export a.mcap b.mcap c.mcap --to html          sessions.html, all of them side by side; or csv, a row each

`dhmd-live run --record talk.mcap` records a session. An interrupted one is exported up to where it ends.

exit status: 0 done, 1 not a session, or nothing in it to export, 2 the request is wrong.
"""

INFO_EXAMPLES = """examples:
  dhmd-live info talk.mcap
  dhmd-live info talk.mcap --json | jq .length_s

exit status: 0 done, 1 not a session.
"""

REPAIR_EXAMPLES = """examples:
  dhmd-live repair talk.mcap                               talk.repaired.mcap, if talk.mcap needs it
  dhmd-live repair talk.mcap --out whole.mcap

A recording that is killed loses its last second and its index. Replay and export read it as it is; other programs may
need it repaired. The file itself is never changed.

exit status: 0 done or nothing to do, 1 not a session, or nothing of it left, 2 the request is wrong.
"""


def add_export(commands: Commands) -> None:
    from realtime.languages import ENGLISH, LANGUAGES
    from realtime.session.export.formats import FORMATS

    formats = "\n".join(f"  {name:<10} {one.what}" for name, one in FORMATS.items())
    examples = EXPORT_EXAMPLES.format(formats=formats)
    export = _add(
        commands, "export", _export, "write a session in another format, or compare several", examples, several=True
    )
    export.add_argument("--to", required=True, choices=list(FORMATS), metavar="FORMAT", help=", ".join(FORMATS))
    export.add_argument(
        "--language",
        choices=LANGUAGES,
        default=ENGLISH,
        help="what a report or its picture is written in (default: en)",
    )
    _add_output_flags(export, "FILE with the format's suffix; of several, sessions")


def _export(options: argparse.Namespace) -> int:
    from realtime.session.export.write import compare, export

    if len(options.file) > 1:
        print(compare(options.file, options.to, options.out, force=options.force, language=options.language))
    else:
        print(export(options.file[0], options.to, options.out, force=options.force, language=options.language))
    return 0


def add_info(commands: Commands) -> None:
    info = _add(commands, "info", _info, "say what is in a session", INFO_EXAMPLES)
    info.add_argument("--json", action="store_true", help="print JSON, for programs")


def _info(options: argparse.Namespace) -> int:

    from realtime.session.info import show_info

    return show_info(options.file, PlainConsole(), as_json=options.json)


def add_repair(commands: Commands) -> None:
    repair = _add(commands, "repair", _repair, "rescue what is intact of an interrupted session", REPAIR_EXAMPLES)
    _add_output_flags(repair, "FILE.repaired.mcap")


def _repair(options: argparse.Namespace) -> int:
    from realtime.session.repair import repair

    repaired = repair(options.file, options.out, force=options.force)
    if repaired is None:
        print(f"{options.file}: intact; nothing to repair")
    else:
        print(f"{repaired.out}: {repaired.messages} messages saved, up to {repaired.last_s:.1f} s")
    return 0


def _add(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    examples: str,
    *,
    several: bool = False,
) -> Parser:
    """A command that reads a session, or several."""
    parser = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=examples)
    parser.set_defaults(command=run)
    parser.add_argument(
        "file", type=Path, metavar="FILE", nargs="+" if several else None, help="a recorded session (.mcap)"
    )
    return parser


def _add_output_flags(command: Parser, default: str) -> None:
    command.add_argument("--out", type=Path, metavar="PATH", help=f"where to write it (default: {default})")
    command.add_argument("--force", action="store_true", help="replace an existing file")
