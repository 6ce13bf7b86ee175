"""Reaching a broker."""

from __future__ import annotations

import logging
import ssl
from typing import Final

import aiomqtt

from realtime.broker import BrokerAddress

KEEPALIVE_S: Final = 6
"""A connection that died without a word is noticed after two of these."""
CONNECT_TIMEOUT_S: Final = 5.0
REFUSALS: Final = {134: "bad user name or password", 135: "not authorised"}
"""CONNACK reasons that trying again does not mend. paho gives those of MQTT 3.1.1 by their numbers of 5; its 4 and 5
are codes of its own for a lost connection."""


def connect(broker: BrokerAddress, will: aiomqtt.Will | None = None) -> aiomqtt.Client:
    """A client of this broker, to be entered."""
    return aiomqtt.Client(
        broker.host,
        broker.port,
        username=broker.username,
        password=broker.password,
        will=will,
        tls_context=ssl.create_default_context() if broker.tls else None,
        keepalive=KEEPALIVE_S,
        timeout=CONNECT_TIMEOUT_S,
        logger=logging.getLogger("realtime.mqtt.client"),
    )


def refusal(error: Exception) -> str | None:
    """Why the broker rejects the credentials; None when the error is another."""
    reason = getattr(error, "rc", None)
    return REFUSALS.get(getattr(reason, "value", -1))
