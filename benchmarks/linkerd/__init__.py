"""A control plane for linkerd2-proxy that fits on a page: fixed answers, so that it can be measured without a cluster."""
