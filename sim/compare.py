"""The command `python -m sim.compare`: two renderers on the same scenes (bench.renderers)."""

import runpy

if __name__ == "__main__":
    runpy.run_module("bench.renderers", run_name="__main__", alter_sys=True)
