"""Fitting: losses, the loop, its files and devices."""
