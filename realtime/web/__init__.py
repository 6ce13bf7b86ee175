"""The page: a stream in a browser."""
