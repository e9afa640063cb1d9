"""Canaries that are good, bad, bursty, drifting or hit by an outage, simulated from seeds: who rolls them back, and when.

    streams.py   what both arms did, second by second      methods.py   who looks at it      __main__.py   the table, the plot

`make simulate-canary` fills the table of docs/canary/evidence.md.
"""
