"""`dhmd-live watch`: a stream as another app receives it, in readable lines."""

from __future__ import annotations

import asyncio
import logging

import aiomqtt
from pydantic import ValidationError
from rich.console import Console

from realtime.broker import BrokerAddress
from realtime.estimate import Estimate
from realtime.mqtt import connect, in_words, refusal
from realtime.view import Dashboard, TerminalView

logger = logging.getLogger(__name__)

RETRY_S = 1.0


def watch(broker: BrokerAddress, stream: str, console: Console) -> int:
    """Print until Ctrl-C; reconnects when the broker goes away. Raises BrokerRefused."""
    asyncio.run(_watch(broker, stream, console))
    return 0


async def _watch(broker: BrokerAddress, stream: str, console: Console) -> None:
    dashboard = Dashboard(f"watching dhmd/{stream}", str(broker))
    told_away = False
    with TerminalView(console, dashboard) as view:
        while True:
            try:
                async with connect(broker) as client:
                    await client.subscribe(f"dhmd/{stream}/emotion")
                    await client.subscribe(f"dhmd/{stream}/status")
                    told_away = False
                    console.print(f"watching dhmd/{stream} on {broker}", markup=False, soft_wrap=True)
                    async for message in client.messages:
                        _show(message, view, console)
            except (aiomqtt.MqttError, OSError) as error:
                if refused := refusal(broker, error):
                    raise refused from error
                if not told_away:
                    logger.warning("broker %s is away (%s); trying again", broker, in_words(error))
                told_away = True
                await asyncio.sleep(RETRY_S)


def _show(message: aiomqtt.Message, view: TerminalView, console: Console) -> None:
    payload = message.payload if isinstance(message.payload, bytes) else str(message.payload).encode()
    if message.topic.matches("dhmd/+/status"):
        console.print(f"{message.topic}: {payload.decode(errors='replace')}", markup=False, soft_wrap=True)
        return
    try:
        view.show(Estimate.model_validate_json(payload))
    except ValidationError as error:
        problem = f"{message.topic}: not an estimate of version 1 ({error.error_count()} problems)"
        console.print(problem, markup=False, soft_wrap=True)
