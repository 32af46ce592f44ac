"""The command `python -m sim.compare`: two renderers on the same scenes (bench.renderers)."""

import sys

from bench.renderers import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
