"""What a release says to the world, and what it asks of it: webhooks and alerts, over HTTP with bounds.

    wiring.py ──▶ courier.py ──▶ alert_sender.py, hook_client.py ──▶ post.py

What is said, and in which words, is pure: `declared/hooks.py` and `declared/alerts.py`.
"""
