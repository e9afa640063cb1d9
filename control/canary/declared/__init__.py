"""What people declare of a release, read into typed values: the Canary and all it holds, the ReleasePolicy, a person's orders.

Every function here gives a value or says what is wrong where (`fields.py`); nothing here decides.
"""
