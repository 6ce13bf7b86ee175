"""The way from hop to hop: on the machine's clock, or on the file's."""
