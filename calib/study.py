"""The command `python -m calib.study`: claims against truth on simulated rigs (bench.handeye)."""

import runpy

if __name__ == "__main__":
    runpy.run_module("bench.handeye", run_name="__main__", alter_sys=True)
