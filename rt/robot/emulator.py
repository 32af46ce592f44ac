"""The command `python -m rt.robot.emulator`: an emulated UR controller (sim.hardware.ur)."""

import importlib
import sys


def main() -> int:
    # By name: rt imports nothing from sim when it is imported itself.
    return int(importlib.import_module("sim.hardware.ur.__main__").main())


if __name__ == "__main__":
    sys.exit(main())
