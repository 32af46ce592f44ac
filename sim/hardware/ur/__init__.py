"""An emulated UR controller: RTDE, dashboard and programs on real ports, an arm, faults on request."""

from sim.hardware.ur.process import Emulator, start_emulator

__all__ = ["Emulator", "start_emulator"]
