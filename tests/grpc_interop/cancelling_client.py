"""A client that calls Wait, says so, and sits there until it is killed.   ADDRESS NAME"""

from __future__ import annotations

import sys

import grpc
from interop_ways import message

channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.enable_http_proxy", 0)])
call = channel.stream_stream("/interop.Test/Wait")(iter([message(name=sys.argv[2], first=True)]))
print("called", next(call), flush=True)
next(call)
