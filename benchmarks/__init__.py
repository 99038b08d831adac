"""Measurements against peers, side by side in one run: `python -m benchmarks.<name>` prints a table and writes JSON."""
