"""What `deploy/` gives to Docker, systemd and Home Assistant, as far as it can be read here; `make image` runs it."""

from __future__ import annotations

import http.server
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from realtime.cli.entry import parser
from realtime.cli.flags import settings_of
from realtime.layers import ENVIRONMENT
from realtime.settings import RunSettings

DEPLOY = Path(__file__).parents[1] / "deploy"
ADD_ON = DEPLOY / "home-assistant"
OTHERS = {"DHMD_CACHE", "DHMD_BROKER_USER", "DHMD_BROKER_PASSWORD"}
SERVICES = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
CONFIG = yaml.safe_load((ADD_ON / "config.yaml").read_text())


@pytest.mark.parametrize("name", [name for name in SERVICES if name != "broker"])
def test_a_service_of_compose_is_a_command_with_its_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    service = SERVICES[name]
    for variable, value in service.get("environment", {}).items():
        monkeypatch.setenv(variable, str(value))
        if variable.startswith(ENVIRONMENT):
            assert variable in OTHERS or variable.removeprefix(ENVIRONMENT).lower() in RunSettings.model_fields
    options = parser().parse_args(service["command"])
    settings = settings_of(options) if "config" in options else RunSettings(broker=options.broker)
    assert settings.broker == "mqtt://broker"
    assert service["read_only"]
    published = [address for address in service.get("ports", []) if not address.startswith("127.0.0.1:")]
    assert not published


def test_the_image_runs_a_command_and_asks_for_its_health() -> None:
    lines = (DEPLOY / "Dockerfile").read_text()
    health, command = re.findall(r"^(?:HEALTHCHECK .*)?CMD (\[.*\])$", lines, re.MULTILINE)
    assert json.loads(health) == ["dhmd-live", "health"]
    parser().parse_args(json.loads(command))
    assert re.search(r"^USER dhmd$", lines, re.MULTILINE)
    copied = {word for words in re.findall(r"^COPY (?!--)(.*) \S+$", lines, re.MULTILINE) for word in words.split()}
    kept = set(re.findall(r"^!(\S+)", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE))
    assert copied == kept
    assert all((DEPLOY.parent / name).exists() for name in copied)


@pytest.mark.parametrize("unit", sorted((DEPLOY / "systemd").iterdir()), ids=lambda unit: unit.name)
def test_a_unit_of_systemd_is_well_formed(unit: Path, tmp_path: Path) -> None:
    (started,) = re.findall(r"^ExecStart=(.*)$", unit.read_text(), re.MULTILINE)
    program, *words = shlex.split(started)
    assert program == "/opt/dhmd/bin/dhmd-live"
    parser().parse_args(words)
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze; sudo apt install systemd")
    copy = tmp_path / unit.name.replace("@.", "@hall.")
    copy.write_text(unit.read_text().replace(program, "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_options_of_the_add_on_are_keys_of_a_configuration_file() -> None:
    RunSettings.model_validate(CONFIG["options"])
    assert set(CONFIG["options"]) <= set(CONFIG["schema"]) <= set(RunSettings.model_fields)
    required = {key for key, kind in CONFIG["schema"].items() if not kind.endswith("?")}
    assert required == set(CONFIG["options"])


class Supervisor(http.server.BaseHTTPRequestHandler):
    """Tells of a broker those who have the token."""

    def do_GET(self) -> None:
        known = self.headers["Authorization"] == "Bearer let-me" and self.path == "/services/mqtt"
        self.send_response(200 if known else 400)
        self.end_headers()
        told = {"host": "core-mosquitto", "port": 1883, "ssl": False, "username": "addons", "password": "hush"}
        self.wfile.write(json.dumps({"result": "ok", "data": told}).encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.mark.parametrize(
    ("token", "options", "broker"),
    [
        ("let-me", {}, "mqtt://core-mosquitto:1883"),
        ("let-me", {"broker": "mqtt://other.local"}, "mqtt://other.local:1883"),
        ("nobody", {}, "embedded"),
    ],
    ids=["the Supervisor's", "one that is named", "none"],
)
def test_the_add_on_starts_with_its_options(token: str, options: dict[str, str], broker: str, tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text(json.dumps(CONFIG["options"] | options))
    program = tmp_path / "dhmd-live"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m realtime config "$@"\n')
    program.chmod(0o755)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Supervisor) as supervisor:
        threading.Thread(target=supervisor.serve_forever, daemon=True).start()
        environment = {
            **os.environ,
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(DEPLOY.parent),
            "DHMD_DATA": str(tmp_path),
            "SUPERVISOR": f"http://127.0.0.1:{supervisor.server_port}",
            "SUPERVISOR_TOKEN": token,
        }
        done = subprocess.run(
            [sys.executable, ADD_ON / "run.py"], env=environment, capture_output=True, text=True, check=True
        )
        supervisor.shutdown()
    settings = yaml.safe_load(done.stdout[done.stdout.index("source: ") :])
    assert settings["broker"] == broker
    assert (settings["host"], settings["proxy"]) == ("0.0.0.0", "172.30.32.2")
    assert settings["discovery"] is True
    assert "hush" not in done.stdout
