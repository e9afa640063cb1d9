"""The release machine, pure: (spec, status, facts, now) -> Decision.

    machine.py  one tick, from the top ──▶ setup ──▶ approval ──▶ analysis, comparison ──▶ strategy or stepping
                                                                                             │             │
                                                                     failure.py  ◀── worse ──┴── good ──▶  promotion.py

`status.py` has the phases and the one table of which may follow which; `draft.py` is a decision while it is being written.
"""
