"""Everything live: capture, transcript, window, engine, publishing."""
