"""gRPC of the control plane: configuration streams and identity; and its process."""

import os

# grpc's C core writes a line to stderr for each failed handshake, without saying whose; before grpc is imported, quiet it.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
