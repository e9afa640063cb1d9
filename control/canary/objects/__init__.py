"""The objects of a release in the store: what is made for it, what is copied, whose fields are held, and what stands ready.

Pure: objects in, manifests or answers out; `control/canary/act.py` writes.
"""
