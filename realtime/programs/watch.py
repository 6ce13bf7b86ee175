"""`dhmd-live watch`: streams as another app receives them, in readable lines or on a page."""

from __future__ import annotations

import asyncio

import aiomqtt
from rich.console import Console

from dhmd.untrusted import LONGEST_QUOTE, shown
from realtime import event_loop
from realtime.messages.estimate import Estimate
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.client import parsed, payload_of, problem, received
from realtime.pipeline.interrupts import stop_when_asked
from realtime.terminal.view import Dashboard, TerminalView
from realtime.web.address import WebAddress
from realtime.web.server import WebServer
from realtime.web.streams import Streams


def watch(broker: BrokerAddress, stream: str, console: Console) -> int:
    """Print until Ctrl-C; reconnects when the broker goes away. Raises BrokerRefused."""
    event_loop.run(_watch(broker, stream, console))
    return 0


def watch_all(broker: BrokerAddress, address: WebAddress, console: Console) -> int:
    """Serve a page of all streams until Ctrl-C. Raises BrokerRefused."""
    event_loop.run(_serve(broker, address, console))
    return 0


async def _serve(broker: BrokerAddress, address: WebAddress, console: Console) -> None:
    stop = stop_when_asked()
    streams = Streams(broker)
    async with WebServer(streams, address).open() as page, asyncio.TaskGroup() as group:
        following = group.create_task(streams.follow())
        console.print(f"all streams of {broker}: {page}", markup=False, highlight=False, soft_wrap=True)
        console.print("Ctrl-C stops", markup=False)
        await stop.wait()
        following.cancel()


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
