"""Predictions, metrics, tables and pictures of a checkpoint."""
