"""From hop to hop: on the machine's clock, or on the file's."""
