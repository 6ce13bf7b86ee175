"""Publishing over MQTT: a live stream that outlives the broker's absence, and statuses that are right at every moment.

`connection` reaches a broker, `reconnection` comes back to it, and `reasons` says why that fails. `publisher` holds the
connection of one stream, `stream` turns what a pipeline makes into messages, `discovery` announces the stream to Home
Assistant, `commands` takes what others want of it, and `client` takes a stream in.
"""
