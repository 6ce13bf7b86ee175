"""Extractors of one stream, its words, and the sliding window on one clock."""
