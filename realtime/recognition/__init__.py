"""Numbers from a window: the engine, shared or not, smoothing, and events."""
