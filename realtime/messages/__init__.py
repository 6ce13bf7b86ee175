"""Messages to others: the estimate, the other payloads of a stream, commands, and the topics."""
