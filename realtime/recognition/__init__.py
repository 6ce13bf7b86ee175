"""Numbers from a window: the engine, shared or not, what is kept still of it, and events."""
