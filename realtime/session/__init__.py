"""Sessions: record a run, replay it, and say what is in a file."""
