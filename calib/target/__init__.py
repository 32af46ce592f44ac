"""Calibration targets: description, detection, printing."""
