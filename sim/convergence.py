"""The command `python -m sim.convergence`: the number of grasps that a label needs (bench.labels)."""

import sys

from bench.labels import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
