"""Grasp pose detection, the one-shot baseline: detector, descriptor, and training."""
