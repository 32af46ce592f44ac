"""The command `python -m sim.convergence`: how many grasps a label needs (bench.labels)."""

import runpy

if __name__ == "__main__":
    runpy.run_module("bench.labels", run_name="__main__", alter_sys=True)
