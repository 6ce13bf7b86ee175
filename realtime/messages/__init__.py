"""What is said to others: the estimate, the other payloads of a stream, commands, and the topics."""
