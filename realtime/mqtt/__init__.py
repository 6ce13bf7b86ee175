"""Publishing over MQTT: a live stream that outlives the broker's absence, and statuses that are right at every moment.

`topics` lists what is published, `connection` reaches a broker, `publisher` holds the connection of one stream,
`stream` turns what a pipeline makes into messages, and `commands` takes what others want of it.
"""

from realtime.messages.topics import check_stream_name
from realtime.mqtt.commands import taking_commands
from realtime.mqtt.connection import connect, in_words, refusal
from realtime.mqtt.publisher import Publisher, publishing
from realtime.mqtt.stream import PublisherSink

__all__ = [
    "Publisher",
    "PublisherSink",
    "check_stream_name",
    "connect",
    "in_words",
    "publishing",
    "refusal",
    "taking_commands",
]
