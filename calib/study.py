"""The command `python -m calib.study`: claims against truth on simulated rigs (bench.handeye)."""

import sys

from bench.handeye import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
