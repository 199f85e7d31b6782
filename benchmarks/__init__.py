"""Measurements of the lab itself: `python -m benchmarks.NAME`; the last result of each lies beside it."""
