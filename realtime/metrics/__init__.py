"""Figures that Prometheus reads of a process."""
