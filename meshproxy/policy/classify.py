"""Was it a success?  Linkerd's classification, so that numbers mean the same (linkerd/app/core/src/classify.rs).

    HTTP    500 - 599 fail; everything else succeeds, 404 and 429 included: the service did answer
    gRPC    UNKNOWN 2, DEADLINE_EXCEEDED 4, PERMISSION_DENIED 7, INTERNAL 13, UNAVAILABLE 14, DATA_LOSS 15 fail

A gRPC response that ends without grpc-status is judged by its HTTP status (Linkerd's choice; the client's library reports
UNKNOWN).  Transport errors are no responses: whoever saw one records a failure with its own error label.
"""

from __future__ import annotations

from typing import Final

NO_GRPC: Final = -1  # not a gRPC response, or one that ended without a status
GRPC_UNKNOWN: Final = 2

_GRPC_FAILURES: Final = (1 << 2) | (1 << 4) | (1 << 7) | (1 << 13) | (1 << 14) | (1 << 15)

_CODES: Final[dict[bytes, int]] = {b"%d" % code: code for code in range(17)} | {b"": NO_GRPC}


def parse_grpc_status(value: bytes) -> int:
    """The number in a `grpc-status` field, 0..16.  b"" -> NO_GRPC.  What is no code of gRPC's counts as UNKNOWN, as its
    specification asks; that also keeps metric labels bounded."""
    return _CODES.get(value, GRPC_UNKNOWN)


def is_failure(status: int, grpc: bool = False, grpc_status: bytes = b"") -> bool:
    """`status`: HTTP 100..599.  `grpc`: the request's content-type said gRPC.  `grpc_status`: the field's value or b""."""
    if grpc and grpc_status:
        return status >= 500 or (_GRPC_FAILURES >> parse_grpc_status(grpc_status)) & 1 != 0
    return status >= 500
