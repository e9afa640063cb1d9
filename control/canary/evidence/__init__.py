"""Is the canary worse than the primary?  Statistics that may be looked at at any time; pure, numbers in, verdict out.

    counts of both arms ──difference──▶ Block ──observe──▶ evidence of each metric ──judge──▶ harm | no harm | not known yet
    (arms.py)                                              (sequence.py)                      (judge.py)

docs/canary/evidence.md explains the method and shows what it does in simulations.
"""
