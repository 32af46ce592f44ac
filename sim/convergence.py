"""The command `python -m sim.convergence`: the number of grasps that labels need (bench.labels)."""

import runpy

if __name__ == "__main__":
    runpy.run_module("bench.labels", run_name="__main__", alter_sys=True)
