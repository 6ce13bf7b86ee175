"""Capture workers: each yields samples with the time they were captured."""
