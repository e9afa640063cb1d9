"""How well requests are spread, found by simulating it: minutes of traffic in a second, the same for the same seed.

The policies are the proxy's own (meshproxy/policy); the callers, replicas and clock around them are not real.
"""
