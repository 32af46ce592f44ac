"""Measurements: latency of the loop and of its inference, throughput of generation."""

from rt.tools.interrupt import one_line

one_line()
