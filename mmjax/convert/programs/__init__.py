"""Formats that hold the computation itself, one file each: `<name>.py` here has the value `FORMAT`."""
