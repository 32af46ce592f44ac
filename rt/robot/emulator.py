"""The command `python -m rt.robot.emulator`: an emulated UR controller (sim.hardware.ur)."""

import runpy

if __name__ == "__main__":
    runpy.run_module("sim.hardware.ur", run_name="__main__", alter_sys=True)
