"""What we rely on of aiomqtt without its promise: this fails when a version of it changes that."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable
from typing import Any

import aiomqtt
import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from realtime.mqtt import aiomqtt_hooks, connection
from realtime.mqtt.aiomqtt_hooks import HookedClient
from realtime.mqtt.broker import BrokerAddress
from realtime.mqtt.connection import Client

pytestmark = pytest.mark.anyio

PRIVATE = {"_client", "_connected", "_disconnected"}
ARGUMENTS = {"on_connect": 5, "on_disconnect": 5, "on_message": 3, "on_publish": 5, "on_socket_register_write": 3}
"""Of paho's callbacks of version 2, which are public."""


async def test_its_private_names_are_what_we_take_them_for() -> None:
    theirs: Any = aiomqtt.Client("localhost")
    assert isinstance(theirs._client, mqtt.Client)
    for future in (theirs._connected, theirs._disconnected):
        assert isinstance(future, asyncio.Future)
        assert not future.done()
    assert list(inspect.signature(theirs._client._sock_recv).parameters) == ["bufsize"]


async def test_it_listens_to_paho_by_the_callbacks_that_we_take_the_place_of() -> None:
    theirs: Any = aiomqtt.Client("localhost")
    ours: Any = HookedClient("localhost")
    assert theirs._client.callback_api_version is CallbackAPIVersion.VERSION2
    for name, count in ARGUMENTS.items():
        for client in (theirs, ours):
            callback: Callable[..., None] = getattr(client._client, name)
            inspect.signature(callback).bind(*[None] * count)


async def test_no_other_private_name_of_it_is_touched_or_taken() -> None:
    theirs = set(dir(aiomqtt.Client("localhost")))
    for module, client in (
        (aiomqtt_hooks, HookedClient("localhost")),
        (
            connection,
            Client(
                BrokerAddress("localhost", 1883), connection._Known(), None, mqtt5=True, largest=1000, identifier=None
            ),
        ),
    ):
        spoken = set(re.findall(r"\bself\.(_[a-z]\w*)", inspect.getsource(module)))
        # A name that both use for a purpose of their own would be found here, too.
        assert spoken & theirs <= PRIVATE
        assert spoken <= set(dir(client))
        overridden = {name for kind in (HookedClient, Client) for name in vars(kind)} & set(vars(aiomqtt.Client))
        assert {name for name in overridden if not name.endswith("__")} == set()


async def test_a_loss_keeps_the_cause_that_it_tells_as_text() -> None:
    with pytest.raises(aiomqtt.MqttError) as failed:
        async with aiomqtt.Client("127.0.0.1", 1):
            pass
    assert type(failed.value) is aiomqtt.MqttError
    assert isinstance(failed.value.__context__, ConnectionRefusedError)
