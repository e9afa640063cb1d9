"""What the parent executes: python -m meshproxy.workers CHANNEL PARENT-PID."""

import sys

from meshproxy.workers.worker import main

if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
