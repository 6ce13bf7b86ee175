"""Publishing over MQTT: a live stream that outlives the broker's absence, and statuses that are right at every moment.

`connection` reaches a broker, `reconnection` comes back to it, and `reasons` says why that fails. `publisher` holds the
connection of one stream, `stream` turns what a pipeline makes into messages, `discovery` announces the stream to Home
Assistant, `commands` takes what others want of it, and `client` takes a stream in.
"""

from realtime.messages.topics import check_stream_name
from realtime.mqtt.commands import taking_commands
from realtime.mqtt.connection import connect
from realtime.mqtt.publisher import Publisher, publishing
from realtime.mqtt.stream import PublisherSink

__all__ = [
    "Publisher",
    "PublisherSink",
    "check_stream_name",
    "connect",
    "publishing",
    "taking_commands",
]
