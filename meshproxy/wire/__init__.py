"""Bytes <-> events.  No I/O, no clock, nothing of ours imported from outside this package."""
