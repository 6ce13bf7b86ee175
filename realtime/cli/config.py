"""`config`: the settings that a command would have, and where each comes from."""

from __future__ import annotations

import argparse
import json

from dhmd.command_line import Commands
from dhmd.untrusted import plain

CONFIG_EXAMPLES = """examples:
  dhmd-live config                                         of `run`, from the environment alone
  dhmd-live config web --config configs/live.yaml --port 9000
                                                           of `web`, as it would be started
  dhmd-live config edge > hall.yaml                        what it prints is a configuration file again
  dhmd-live config --schema > schema.json                  JSON Schema of the file, by which editors complete it

Each key is a flag (--stream hall), a variable of the environment (DHMD_STREAM=hall) and a key of the file
(stream: hall); the flag goes before the variable, and the variable before the file.
"""
SHOWN = ("run", "edge", "serve", "web")


def add_config(commands: Commands) -> None:
    config = commands.add_parser(
        "config",
        help="show the settings of a command, and where each comes from",
        description="Show the settings that a command would have, and where each comes from; start nothing.",
        epilog=CONFIG_EXAMPLES,
    )
    config.set_defaults(command=_config, commands=commands.choices)
    config.add_argument("--schema", action="store_true", help="print the JSON Schema of a configuration file instead")
    config.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="COMMAND", help=f"{', '.join(SHOWN)}, with its flags (default: run)"
    )


def _config(options: argparse.Namespace) -> int:
    from realtime.settings import RunSettings

    if options.schema:
        print(json.dumps(RunSettings.model_json_schema(), indent=2))
        return 0

    from realtime.cli.flags import layers_of
    from realtime.errors import SettingsInvalid
    from realtime.layers import checked

    words = options.words or ["run"]
    if words[0] not in SHOWN:
        raise SettingsInvalid(f"config {words[0]}: has no settings; expected {', '.join(SHOWN)}")
    layers = layers_of(options.commands[words[0]].parse_args(words[1:]))
    came = {key: layer.of(key) for layer in layers for key in layer.values}
    for key, value in checked(layers).shown().items():
        line = plain(f"{key}: {json.dumps(value, ensure_ascii=False)}")
        print(f"{line:<40} # {plain(came[key])}")
    return 0
