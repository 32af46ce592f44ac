"""From a dataset to one model file: network, fit, export."""

import os

from rt.tools.interrupt import one_line

one_line()

# Threads that wait asleep. By default torch's (OpenMP) spin, which on cores shared with anything else
# nearly halves the speed of training; alone it makes no difference. Read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
