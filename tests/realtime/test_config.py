"""Settings from a file, the environment and flags, and what `dhmd-live config` says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from realtime.cli import main
from realtime.layers import read_settings
from realtime.settings import RunSettings

DOCS = Path(__file__).parents[2] / "docs"


def shown(*words: str, capsys: pytest.CaptureFixture[str]) -> dict[str, tuple[object, str]]:
    """What `dhmd-live config` prints: of each key its value, and where that comes from."""
    with pytest.raises(SystemExit) as ended:
        main(["config", *words])
    printed = capsys.readouterr()
    assert ended.value.code == 0, printed.err
    origins = {line.partition(":")[0]: line.rpartition("# ")[2] for line in printed.out.splitlines()}
    return {key: (value, origins[key]) for key, value in yaml.safe_load(printed.out).items()}


def test_each_value_is_told_with_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A flag goes before the environment, that before the file, and that before the command's own default."""
    config = tmp_path / "hall.yaml"
    config.write_text("stream: file\nhop_s: 0.5\nmax_streams: 2\ngroup: east\n")
    for name, value in {"STREAM": "variable", "MAX_STREAMS": "3", "STATE": "true", "OSC": ""}.items():
        monkeypatch.setenv(f"DHMD_{name}", value)
    told = shown("web", "--config", str(config), "--stream", "flag", capsys=capsys)
    assert told.keys() == RunSettings.model_fields.keys()
    assert {
        key: told[key] for key in ("stream", "max_streams", "state", "osc", "hop_s", "group", "source", "port")
    } == {
        "stream": ("flag", "--stream"),
        "max_streams": (3, "DHMD_MAX_STREAMS"),
        "state": (True, "DHMD_STATE"),
        "osc": (None, "default"),
        "hop_s": (0.5, str(config)),
        "group": ("east", str(config)),
        "source": ("browser", "default of the command"),
        "port": (8765, "default"),
    }


def test_what_is_shown_is_a_file_again_without_passwords(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--source", "rtsp://me:hush@camera.local/live", "--broker", "mqtt://me:hush@broker.local")
    told = {key: value for key, (value, _) in shown("run", *words, capsys=capsys).items()}
    assert "hush" not in json.dumps(told)
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(told))
    assert read_settings(tmp_path / "again.yaml", {}).stream == "default"


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("DHMD_PORT", "none", "error: DHMD_PORT: input should be a valid integer, found 'none'"),
        ("DHMD_HOP_S", "9", "error: DHMD_HOP_S: input should be less than or equal to 5, found 9"),
        ("DHMD_STATE", "[", "error: DHMD_STATE: not a value, '['"),
        ("DHMD_STREAM", "a/b", "error: DHMD_STREAM: expected 1 to 64 bytes without spaces and / + # $, found 'a/b'"),
    ],
)
def test_a_wrong_variable_is_named(
    variable: str, value: str, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit) as ended:
        main(["config"])
    assert (ended.value.code, capsys.readouterr().err.strip()) == (2, told)


def test_a_command_without_a_file_reads_no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo plays its own clip, whatever a container is told."""
    from realtime.cli.entry import parser
    from realtime.cli.flags import settings_of

    monkeypatch.setenv("DHMD_SOURCE", "camera:3")
    assert settings_of(parser().parse_args(["demo"]), source="clip.mp4").source == "clip.mp4"
    assert settings_of(parser().parse_args(["run"])).source == "camera:3"


def test_the_schema_is_the_settings_own(capsys: pytest.CaptureFixture[str]) -> None:
    """Otherwise: python -m realtime.settings > docs/config.schema.json."""
    schema = json.loads((DOCS / "config.schema.json").read_text())
    assert schema == RunSettings.model_json_schema()
    assert all(key["description"] for key in schema["properties"].values())
    with pytest.raises(SystemExit):
        main(["config", "--schema"])
    assert json.loads(capsys.readouterr().out) == schema
