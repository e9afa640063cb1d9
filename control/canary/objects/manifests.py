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

from control.canary.objects.configs import ANNOTATION_TRACKING, config_hash, config_key, primary_config, referenced_configs
from control.canary.objects.ownership import (
    ANNOTATION_CANARY,
    HANDS_OFF,
    TargetError,
    contains,
    digest,
    given_back,
    held_canary,
    held_for,
    is_ours,
    left_behind,
    owner,
    taken_over,
)
from control.canary.objects.scalers import held_scaler, primary_scaler, scaler_key
from control.canary.objects.scalers import minimum as scaler_minimum
from control.canary.objects.services import apex_service, service_key, service_ports, services
from control.canary.objects.workloads import (
    ANNOTATION_REVISION,
    held_target,
    primary_key,
    primary_stamp,
    primary_workload,
    replicas,
    revision,
    selector_label,
    stamp_for,
    target_key,
)

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
    "held_canary",
    "held_for",
    "held_scaler",
    "held_target",
    "is_ours",
    "left_behind",
    "owner",
    "primary_config",
    "primary_deployment",
    "primary_key",
    "primary_scaler",
    "primary_stamp",
    "primary_workload",
    "referenced_configs",
    "replicas",
    "revision",
    "scaler_key",
    "scaler_minimum",
    "selector_label",
    "service_key",
    "service_ports",
    "services",
    "stamp_for",
    "taken_over",
    "target_key",
]

# Kinds of the user's objects of which we may hold a field: where to look for what is to be given back.
HELD_KINDS = (
    ("apps", "Deployment"),
    ("apps", "DaemonSet"),
    ("", "Service"),
    ("keda.sh", "ScaledObject"),
    ("split.smi-spec.io", "TrafficSplit"),
    ("specs.smi-spec.io", "HTTPRouteGroup"),
    ("gateway.networking.k8s.io", "HTTPRoute"),
)

primary_deployment = primary_workload
