"""Calibration without a target: the table and the things on it, seen in depth from several poses."""
