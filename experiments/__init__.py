"""Binaries: flags, and a call of the library function that does the work."""
