"""The caller's app: writes its pod's address and service listeners as JSON to the file named, and waits."""

import json
import os
import signal
import sys

told = {name: value for name, value in os.environ.items() if name.startswith("SOAK_SERVICE_")}
with open(sys.argv[1] + ".new", "w") as file:
    json.dump(told, file)
os.rename(sys.argv[1] + ".new", sys.argv[1])  # whole or not there
signal.pause()
