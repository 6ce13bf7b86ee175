"""Draw the picture of the README: start the demo, watch its stream over MQTT, keep the view at one moment.

.venv/bin/python docs/picture.py [--at 22.5] [--out docs/demo.svg]
"""

from __future__ import annotations

import argparse
import asyncio
import io
import re
import sys
from pathlib import Path

from rich.console import Console

from realtime.messages.estimate import Estimate
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.connection import connect
from realtime.terminal.view import Dashboard

WIDTH, HEIGHT = 92, 29


async def picture(at_s: float) -> str:
    """The view of the first estimate at or after `at_s` of the demo, as SVG."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "realtime", "demo", stdout=asyncio.subprocess.PIPE
    )
    said = ""
    while process.stdout and not (found := re.search(r"(mqtt://127\.0\.0\.1:\d+)", said)):
        said += (await process.stdout.read(200)).decode()
    broker = BrokerAddress.parse(found[1])
    dashboard = Dashboard("dhmd demo · demo", f"{broker} connected")
    async with connect(broker) as client:
        await client.subscribe("dhmd/demo/emotion")
        first_s = None
        async for message in client.messages:
            estimate = Estimate.model_validate_json(str(message.payload, "utf-8"))
            dashboard.arrived(estimate)
            first_s = estimate.t if first_s is None else first_s
            if estimate.t - first_s >= at_s:
                break
    process.terminate()
    await process.wait()
    console = Console(
        record=True, width=WIDTH, height=HEIGHT, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(dashboard.render(estimate))
    svg = console.export_svg(title="dhmd-live demo")
    # The picture names no font server; the reader's own monospaced font does as well.
    return re.sub(r"@font-face\s*{[^}]*}\s*", "", svg)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--at", type=float, default=22.5, help="seconds into the demo (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("demo.svg"))
    options = parser.parse_args()
    options.out.write_text(asyncio.run(picture(options.at)), encoding="utf-8")
