"""Start the add-on: its options are the configuration file, and the Supervisor knows the broker."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from pathlib import Path

DATA = Path(os.environ.get("DHMD_DATA", "/data"))
SUPERVISOR = os.environ.get("SUPERVISOR", "http://supervisor")
INGRESS = "172.30.32.2"
"""Address of Home Assistant's proxy, which nobody else has."""


def broker() -> dict[str, str]:
    """Variables that name the Supervisor's broker; none where it has none."""
    token = os.environ.get("SUPERVISOR_TOKEN", "")
    request = urllib.request.Request(f"{SUPERVISOR}/services/mqtt", headers={"Authorization": f"Bearer {token}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            told = json.load(answer)["data"]
    except urllib.error.HTTPError:
        print("no broker at the Supervisor: install the add-on Mosquitto, or set `broker`", flush=True)
        return {}
    scheme = "mqtts" if told.get("ssl") else "mqtt"
    return {
        "DHMD_BROKER": f"{scheme}://{told['host']}:{told['port']}",
        "DHMD_BROKER_USER": told.get("username", ""),
        "DHMD_BROKER_PASSWORD": told.get("password", ""),
    }


def main() -> None:
    options = DATA / "options.json"
    chosen = {} if "broker" in json.loads(options.read_text(encoding="utf-8")) else broker()
    own = {"DHMD_CACHE": str(DATA / "weights"), "DHMD_HOST": "0.0.0.0", "DHMD_PROXY": INGRESS}
    os.environ.update({name: value for name, value in {**own, **chosen}.items() if value})
    os.execvp("dhmd-live", ["dhmd-live", "web", "--config", str(options)])


if __name__ == "__main__":
    main()
