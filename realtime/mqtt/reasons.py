"""Why a broker refuses us, or is away: in words, and whether trying again would help."""

from __future__ import annotations

import ssl
from typing import Final

import aiomqtt
from paho.mqtt.client import error_string
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from realtime.errors import BrokerRefused
from realtime.mqtt.broker import PASSWORD_VARIABLE, USER_VARIABLE, BrokerAddress

UNSPECIFIED: Final = 128
UNSUPPORTED_VERSION: Final = 132
REFUSALS: Final = {134: "bad user name or password", 135: "not authorised"}
"""CONNACK reasons that trying again does not mend. paho gives those of MQTT 3.1.1 by their numbers of 5; its 4 and 5
are codes of its own for a lost connection."""
REASONS: Final = REFUSALS | {
    UNSPECIFIED: "it does not say why",
    UNSUPPORTED_VERSION: "it speaks another version of MQTT",
    133: "it does not accept our client identifier",
    136: "it is not available now",
    137: "it is busy",
    138: "it has banned us",
    139: "it is shutting down",
    141: "it heard nothing from us for too long",
    142: "another client took our client identifier",
    144: "it does not accept a topic of ours",
    147: "we sent more at once than it takes",
    148: "it does not know a topic alias of ours",
    149: "a message was larger than it takes",
    150: "we sent more often than it takes",
    151: "a quota of it is exceeded",
    152: "its administrator closed the connection",
    154: "it keeps no retained messages",
    155: "it does not take our quality of service",
    156: "it wants us to use another server",
    157: "it has moved",
    159: "we connected more often than it takes",
}
"""Words for what a broker says by number, in CONNACK, PUBACK, SUBACK and DISCONNECT."""
OURS_REFUSED: Final = (
    "CERTIFICATE_REQUIRED",
    "UNKNOWN_CA",
    "BAD_CERTIFICATE",
    "HANDSHAKE_FAILURE",
    "CERTIFICATE_EXPIRED",
)
"""Parts of the names that OpenSSL gives to the other side's alerts about our certificate."""


class ClosedEarly(aiomqtt.MqttError):
    """The connection was closed before the broker answered."""


class Untrusted(aiomqtt.MqttError):
    """One of the two does not accept the other's certificate."""


def refusal(broker: BrokerAddress, error: Exception) -> BrokerRefused | None:
    """Returns what ends a run, since trying again does not mend it; None when the error is another."""
    if isinstance(error, Untrusted):
        return BrokerRefused(f"{broker}: {error}")
    if reason := REFUSALS.get(_answer(error)):
        remedy = f"set {USER_VARIABLE} and {PASSWORD_VARIABLE}, or give --broker-password-file"
        return BrokerRefused(f"{broker} refuses us: {reason}; {remedy}")
    return None


def speaks_another(error: Exception) -> bool:
    """Tell whether the broker refused us for the version of MQTT that we spoke."""
    return _answer(error) == UNSUPPORTED_VERSION


def of_tls(error: ssl.SSLError) -> aiomqtt.MqttError:
    """Returns a failed handshake as an error of the connection, in words."""
    return (Untrusted if _distrust(error) else aiomqtt.MqttError)(in_words(error))


def in_words_of(reason: ReasonCode) -> str:
    """Returns what a broker said by number, in words."""
    if reason.packetType == PacketTypes.DISCONNECT and reason.value == UNSPECIFIED:
        # So paho calls it that there was no word at all.
        return "the connection was lost"
    return REASONS.get(reason.value, str(reason).lower())


def in_words(error: BaseException) -> str:
    """Returns why a broker is away, without numbers."""
    match error:
        case aiomqtt.MqttCodeError(rc=ReasonCode() as code):
            words = in_words_of(code)
        case aiomqtt.MqttCodeError(rc=int(number)):
            words = error_string(number).lower().rstrip(".")
        case TimeoutError():
            words = "it does not answer"
        case ssl.SSLCertVerificationError():
            reason = error.verify_message.rstrip(".")
            words = f"its certificate is not trusted ({reason}); name the CA that signed it with --broker-ca"
        case ssl.SSLError() if _distrust(error):
            words = "it does not accept our certificate, or asks for one; give --broker-cert and --broker-key"
        case ssl.SSLError():
            reason = (error.reason or str(error)).lower().replace("_", " ")
            words = f"TLS fails ({reason}); is it the port for TLS?"
        case OSError(strerror=str(words)):
            pass
        case _ if str(error) == "Operation timed out":
            words = "it does not answer"
        case _:
            words = str(error) or type(error).__name__
    return words


def _distrust(error: ssl.SSLError) -> bool:
    return isinstance(error, ssl.SSLCertVerificationError) or any(word in (error.reason or "") for word in OURS_REFUSED)


def _answer(error: Exception) -> int:
    """Returns the broker's answer to our wish to connect; -1 when the error is another."""
    reason = getattr(error, "rc", None)
    return reason.value if isinstance(reason, ReasonCode) and reason.packetType == PacketTypes.CONNACK else -1
