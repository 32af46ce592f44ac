"""The command `python -m rt.robot.emulator`: an emulated UR controller (sim.hardware.ur)."""

import sys

from sim.hardware.ur.__main__ import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
