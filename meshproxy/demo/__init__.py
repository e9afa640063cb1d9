"""The demonstration: the shop in `examples/` on this machine, and the proof that what was shown did happen.

scratch     a copy of the manifests, and the edits made to it
load        requests through the gateway             -> client ledger
(the shop)  what each app handled                    -> service ledger
watch       weights, phases, pods, golden metrics    -> timeline
relay       a hop whose bytes are recorded
intruders   calls that must be refused
scenes      the acts, in order; show: the stage they play on
view        what the terminal shows
verdict     the ledgers and the timeline -> was it observed?      pure
"""
