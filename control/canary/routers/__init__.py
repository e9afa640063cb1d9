"""How requests are shared out between primary and canary: a Router for each kind of object that can say it.

spec.provider   ""  linkerd  osm  smi:*       SplitRouter: TrafficSplits; but
                                              GatewayRouter where a split cannot say what is asked (ServiceSpec.needs_route)
                gatewayapi:*                  GatewayRouter: an HTTPRoute
                kubernetes                    NoRouter: nothing is shared out, the apex selects the primary
"""

from __future__ import annotations

from control.canary.declared.service import GATEWAY, NONE
from control.canary.declared.spec import CanarySpec
from control.canary.machine.routing import Routing
from control.canary.routers.affinity import Cookies, cookies, with_cookies
from control.canary.routers.gateway import GatewayRouter
from control.canary.routers.none import NoRouter
from control.canary.routers.router import Router
from control.canary.routers.split import SplitRouter

__all__ = ["Cookies", "Router", "Routing", "cookies", "router_for", "with_cookies"]

_SPLIT, _GATEWAY, _NONE = SplitRouter(), GatewayRouter(), NoRouter()


def router_for(spec: CanarySpec) -> Router:
    """The router of a Canary."""
    if spec.routes.kind == NONE:
        return _NONE
    return _GATEWAY if spec.routes.kind == GATEWAY or spec.routes.needs_route else _SPLIT
