"""A release before it matters: the real controller, on a store of its own, with a simulated clock and modelled metrics.

    manifests ──▶ world.py (store, clock) ◀── controller ──▶ around.py (pods, webhooks, metrics) ──▶ model.py, replay.py
    (given.py)         │
                       └──▶ timeline.py (what happened, tick by tick) ──▶ text.py, plot.py

Nothing here is another machine: what a simulation promotes, the control plane would promote on the same numbers.
"""
