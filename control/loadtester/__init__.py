"""The other side of a Canary's webhooks: gates that people open and close, and commands that test or load a release."""
