"""Experiments as values: `get_config(variant)` in each file."""
