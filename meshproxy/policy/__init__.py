"""Facts + now -> a decision.  No I/O, no clock; imports only `wire.message`."""
