"""Hand-eye calibration that says whether to trust it."""
