"""What both planes must spell alike and mesh.proto cannot say."""

from __future__ import annotations

from typing import Final

# Hello.protocol.  Raised when meaning changes; one version either way must work.
PROTOCOL: Final = 1

# The DNS SAN of the control plane's certificate: grpc's clients check names, not URIs.
CONTROL_DNS_NAME: Final = "control.meshproxy.internal"

# Certify listens on the port after Watch's.  grpcio can demand a client certificate or not ask for one, but not ask
# without demanding (ssl_server_credentials), and a proxy that has no certificate yet cannot show one.
CERTIFY_PORT_OFFSET: Final = 1

# One Update holds at most this: 4 MB, grpc's default, is about 20,000 endpoints.
MAX_MESSAGE_BYTES: Final = 32 << 20
