"""`dhmd-live watch`: a stream as another app receives it, in readable lines."""

from __future__ import annotations

import aiomqtt
from rich.console import Console

from dhmd.untrusted import LONGEST_QUOTE, shown
from realtime import event_loop
from realtime.messages.estimate import Estimate
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.client import parsed, payload_of, problem, received
from realtime.terminal.view import Dashboard, TerminalView


def watch(broker: BrokerAddress, stream: str, console: Console) -> int:
    """Print until Ctrl-C; reconnects when the broker goes away. Raises BrokerRefused."""
    event_loop.run(_watch(broker, stream, console))
    return 0


async def _watch(broker: BrokerAddress, stream: str, console: Console) -> None:
    def tell() -> None:
        console.print(f"watching dhmd/{stream} on {broker}", markup=False, soft_wrap=True)

    dashboard = Dashboard(f"watching dhmd/{stream}", str(broker))
    with TerminalView(console, dashboard) as view:
        async for message in received(broker, [f"dhmd/{stream}/emotion", f"dhmd/{stream}/status"], tell):
            _show(message, view, console)


def _show(message: aiomqtt.Message, view: TerminalView, console: Console) -> None:
    if message.topic.matches("dhmd/+/status"):
        status = shown(payload_of(message)[: 4 * LONGEST_QUOTE].decode(errors="replace"))
        console.print(f"{shown(message.topic.value)}: {status}", markup=False, soft_wrap=True)
        return
    try:
        view.show(parsed(message, Estimate))
    except ValueError as error:
        line = f"{shown(message.topic.value)}: not an estimate of version 1 ({problem(error)})"
        console.print(line, markup=False, soft_wrap=True)
