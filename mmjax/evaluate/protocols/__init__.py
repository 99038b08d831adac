"""Evaluation protocols, one file each: `build(encoders, *, data, ...)` returns `params -> (name, value)...`."""
