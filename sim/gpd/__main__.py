"""The command `python -m sim.gpd train`."""

import sys

from sim.gpd.train import main

if __name__ == "__main__":
    if sys.argv[1:2] != ["train"]:
        print("usage: python -m sim.gpd train [options]; --help lists them", file=sys.stderr)
        sys.exit(2)
    sys.exit(main(sys.argv[2:]))
