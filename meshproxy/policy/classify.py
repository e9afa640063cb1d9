"""Was it a success?  Linkerd's classification, so that numbers mean the same (linkerd/app/core/src/classify.rs).

    HTTP    500 - 599 fail; everything else succeeds, 404 and 429 included: the service did answer
    gRPC    UNKNOWN 2, DEADLINE_EXCEEDED 4, PERMISSION_DENIED 7, INTERNAL 13, UNAVAILABLE 14, DATA_LOSS 15 fail

A gRPC stream that ends without grpc-status is judged by its HTTP status (Linkerd's choice; the client library reports
UNKNOWN).  Transport errors are no responses: whoever saw one records a failure with its own error label.
"""

from __future__ import annotations

from typing import Final

NO_GRPC: Final = -1  # not a gRPC response, or one that ended without a status
GRPC_UNKNOWN: Final = 2
GRPC_DEADLINE_EXCEEDED: Final = 4

_GRPC_FAILURES: Final = (1 << 2) | (1 << 4) | (1 << 7) | (1 << 13) | (1 << 14) | (1 << 15)

_CODES: Final[dict[bytes, int]] = {b"%d" % code: code for code in range(17)} | {b"": NO_GRPC}


def is_success(status: int, grpc_status: int = NO_GRPC) -> bool:
    """`status`: HTTP 100..599.  `grpc_status`: 0..16, or NO_GRPC."""
    if grpc_status >= 0:
        return status < 500 and not (_GRPC_FAILURES >> grpc_status) & 1
    return status < 500


def parse_grpc_status(value: bytes) -> int:
    """The number in a `grpc-status` field, 0..16.  b"" -> NO_GRPC.  What is no code of gRPC's counts as UNKNOWN, as its
    specification asks; that also keeps metric labels bounded."""
    return _CODES.get(value, GRPC_UNKNOWN)
