"""Measurements.  Nothing here is a test: speed is not asserted, it is reported."""
