"""From a window to numbers: the engine, shared or not, smoothing, and events."""
