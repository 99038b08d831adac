"""Formats of PyTorch checkpoints, one file each: `<name>.py` here has the value `FORMAT`."""
