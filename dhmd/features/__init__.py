"""Extractors: one a modality, the same code live and offline."""
