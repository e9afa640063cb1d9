"""Load generators.  Each gives a Load: what was asked, how long it took, how long each took, what failed.

    closed.py   our own closed-loop HTTP/1.1 client (`make bench-smoke`; needs nothing installed)
    wrk.py      wrk: HTTP/1.1, closed loop
    h2load.py   h2load: HTTP/2
    driver.py   programs of ours run as a process of their own on the load core (gRPC, open loop), which print one JSON line

All run on measure.LOAD_CORE.  A Load with errors is no measurement.
"""
