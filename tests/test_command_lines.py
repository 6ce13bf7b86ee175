"""The help of both commands: every command has examples, every flag tells its default, and a slip is put right."""

from __future__ import annotations

import argparse
import re

import pytest

from realtime.cli import entry
from realtime.settings import RunSettings
from training.cli import flags

PROGRAMS = {"dhmd-live": entry.parser, "dhmd-train": flags.parser}


def commands_of(program: str) -> dict[str, argparse.ArgumentParser]:
    (commands,) = (a for a in PROGRAMS[program]()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(commands.choices)


EVERY = [pytest.param(program, name, id=f"{program} {name}") for program in PROGRAMS for name in commands_of(program)]


@pytest.mark.parametrize(("program", "name"), EVERY)
def test_every_command_has_examples_that_its_own_parser_takes(program: str, name: str) -> None:
    command = commands_of(program)[name]
    shown = command.format_help()
    assert "examples:\n" in shown
    examples = re.findall(
        rf"^  ({program} {name}\b.*?)(?:  +.*| [|].*)?$", shown[shown.index("examples:\n") :], re.MULTILINE
    )
    assert examples
    for example in examples:
        words = [word.strip("'") for word in example.split()[1:]]
        if words[-1] != "\\":
            PROGRAMS[program]().parse_args(words)


@pytest.mark.parametrize(("program", "name"), EVERY)
def test_every_flag_tells_its_default_in_one_style(program: str, name: str) -> None:
    for action in commands_of(program)[name]._actions:
        assert action.help, action
        if action.default not in {None, False, argparse.SUPPRESS} and action.nargs != 0:
            assert re.search(r"\(default: .+\)", action.help), action
        if action.option_strings and action.nargs != 0 and action.choices is None:
            assert action.metavar, f"{action.option_strings}: its value has a name of its own"


def test_the_flags_of_a_run_tell_the_defaults_of_its_settings() -> None:
    """Of a run, a page and a server."""
    commands = commands_of("dhmd-live")
    flags = {action.dest: action for name in ("serve", "web", "run") for action in commands[name]._actions}
    for name, field in RunSettings.model_fields.items():
        if name == "streams":  # a file's alone
            continue
        flag = flags[name]
        if flag.nargs == 0 or field.default is None:
            continue
        told = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)
        assert re.search(rf"\(default: {re.escape(told)}[,)]|default: {re.escape(told)}\)", str(flag.help)), name


def test_the_flags_of_a_run_stand_in_groups() -> None:
    run = commands_of("dhmd-live")["run"]
    grouped = {group.title: [a.dest for a in group._group_actions] for group in run._action_groups}
    assert set(grouped.pop("options")) == {"help", "config"}
    assert [title for title, flags in grouped.items() if flags] == [
        "what is perceived",
        "the model and its answer",
        "where it goes",
        "control from outside",
        "what is recorded",
    ]


@pytest.mark.parametrize(
    ("program", "words", "told"),
    [
        ("dhmd-live", "rnu", "argument COMMAND: invalid choice: 'rnu' (did you mean run?); see dhmd-live --help"),
        ("dhmd-live", "run --sorce x", "unrecognized arguments: --sorce x (did you mean --source?); see dhmd-live run"),
        ("dhmd-live", "export a.mcap --to htm", "argument --to: invalid choice: 'htm' (did you mean html?)"),
        ("dhmd-live", "run --pace quick", "argument --pace: invalid choice: 'quick' (choose from 'realtime', 'max')"),
        ("dhmd-live", "run --zzz", "unrecognized arguments: --zzz; see dhmd-live run --help"),
        ("dhmd-train", "evalute", "argument COMMAND: invalid choice: 'evalute' (did you mean evaluate?)"),
        ("dhmd-train", "fit x.yaml --manifst=y", "unrecognized arguments: --manifst=y (did you mean --manifest?)"),
    ],
)
def test_a_slip_is_told_with_what_was_meant(
    program: str, words: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        PROGRAMS[program]().parse_args(words.split())
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {told}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_tells_its_version(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        PROGRAMS[program]().parse_args(["--version"])
    assert ended.value.code == 0
    assert re.fullmatch(rf"{program} \d+\.\d+\.\d+\n", capsys.readouterr().out)
