"""Latency of inference and of the whole cycle."""
