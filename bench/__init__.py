"""Measurements: latency of the loop and of its inference, throughput of generation."""
