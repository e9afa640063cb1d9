"""Where the numbers come from that a release is judged by: the mesh's own proxies, or a Prometheus.

sources.py ──▶ embedded.py    ──▶ window.py (one pod)      ──▶ ledger.py (both arms)
          └──▶ prometheus.py  ──▶ promql.py (the question) ──▶ prometheus_arms.py
"""
