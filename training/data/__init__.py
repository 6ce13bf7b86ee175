"""Labelled items, their features, and the samples composed of them."""
