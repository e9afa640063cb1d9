"""Routes that are put back while the baseline is gone: nobody is sent where nothing is."""

from __future__ import annotations

from test_canary_baseline import READY, begun

from control.canary.machine.routing import TO_PRIMARY
from control.canary.objects.readiness import Readiness


def test_routes_are_put_back_without_a_baseline_that_is_gone_and_with_it_once_it_is_there():
    play = begun({"metrics": []})
    for _ in range(2):
        play.tick()
    assert play.at() == ("Progressing", "canary 10, primary 80, baseline 10", "baseline of v1 x 2")
    play.baseline, play.routing = None, TO_PRIMARY  # as after a crash in the middle of a roll back, or by hand
    play.due = False  # no step is taken
    play.baseline_ready = Readiness(False, "0 of 2 are available")  # of the one that is made now
    for _ in range(3):
        play.tick()
        assert play.at() == ("Progressing", "canary 10, primary 90", "baseline of v1 x 2")
    play.baseline_ready = READY
    play.tick()
    assert play.at() == ("Progressing", "canary 10, primary 80, baseline 10", "baseline of v1 x 2")
