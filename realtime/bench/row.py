"""Rows that a part of `dhmd-live bench` hands to its table."""

Row = tuple[str, str, str]
"""What it is, what was measured, what is aimed at."""
