"""The caller's app: writes where its sidecar listens for Service `bench` (HOST:PORT) to the file named, and waits."""

import os
import signal
import sys

with open(sys.argv[1] + ".new", "w") as file:
    file.write(f"{os.environ['BENCH_SERVICE_HOST']}:{os.environ['BENCH_SERVICE_PORT']}")
os.rename(sys.argv[1] + ".new", sys.argv[1])  # whole or not there
signal.pause()
