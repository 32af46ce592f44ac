"""The command `python -m bench.latency`."""

import sys

from bench.latency.command import main

if __name__ == "__main__":
    sys.exit(main())
