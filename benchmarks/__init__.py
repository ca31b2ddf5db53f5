"""Measurements against the official package; results in `results/`."""
