"""The objects a release is made of, as we want them: pure functions from Canary and target to manifests.

    workloads.py   <t> (held), <t>-primary           Deployments or DaemonSets
    configs.py     ConfigMaps, Secrets -primary      what their templates refer to
    services.py    <apex>, <apex>-primary, -canary
    scalers.py     <scaler> (held), -primary         HorizontalPodAutoscaler, ScaledObject
    routers/       TrafficSplit, HTTPRoute           who gets how many requests
    ownership.py   what is ours, what we hold of the user's

`contains(current, wanted)` is how facts see that something is as wanted; what others put on an object does not matter.
"""

from __future__ import annotations

from control.canary.configs import ANNOTATION_TRACKING, config_hash, config_key, primary_config, referenced_configs
from control.canary.ownership import (
    ANNOTATION_CANARY,
    HANDS_OFF,
    TargetError,
    contains,
    digest,
    given_back,
    held_for,
    is_ours,
    owner,
)
from control.canary.scalers import held_scaler, primary_scaler, scaler_key
from control.canary.services import apex_service, reverted_apex, service_key, service_ports, services
from control.canary.spec import CanarySpec
from control.canary.workloads import (
    ANNOTATION_REVISION,
    held_target,
    primary_key,
    primary_stamp,
    primary_workload,
    replicas,
    reverted_target,
    revision,
    selector_label,
    stamp_for,
    target_key,
)
from control.store.store import Object

__all__ = [
    "ANNOTATION_CANARY",
    "ANNOTATION_REVISION",
    "ANNOTATION_TRACKING",
    "HANDS_OFF",
    "HELD_KINDS",
    "TargetError",
    "apex_service",
    "config_hash",
    "config_key",
    "contains",
    "digest",
    "given_back",
    "held_for",
    "held_scaler",
    "held_target",
    "is_ours",
    "owner",
    "primary_config",
    "primary_deployment",
    "primary_key",
    "primary_scaler",
    "primary_stamp",
    "primary_workload",
    "referenced_configs",
    "replicas",
    "reverted_apex",
    "reverted_target",
    "revision",
    "scaler_key",
    "selector_label",
    "service_key",
    "service_ports",
    "services",
    "stamp_for",
    "target_key",
    "traffic_split",
]

# Kinds of the user's objects of which we may hold a field: where to look for what is to be given back.
HELD_KINDS = (("apps", "Deployment"), ("apps", "DaemonSet"), ("", "Service"), ("keda.sh", "ScaledObject"))

SPLIT_API_VERSION = "split.smi-spec.io/v1alpha2"
SPLIT_GROUP = "split.smi-spec.io"

primary_deployment = primary_workload


def traffic_split(spec: CanarySpec, canary_weight: int) -> Object:
    """The split with `canary_weight` percent to the canary.  Raises ValueError outside 0..100.  Goes with SetWeights."""
    if not 0 <= canary_weight <= 100:
        raise ValueError(f"a canary weight is 0..100 percent, not {canary_weight}")
    return {
        "apiVersion": SPLIT_API_VERSION,
        "kind": "TrafficSplit",
        "metadata": {"name": spec.apex, "namespace": spec.namespace, "ownerReferences": owner(spec)},
        "spec": {
            "service": spec.apex,
            "backends": [
                {"service": spec.canary_service, "weight": canary_weight},
                {"service": spec.primary_service, "weight": 100 - canary_weight},
            ],
        },
    }
