"""View and keys of a person at the terminal."""
