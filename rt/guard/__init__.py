"""Everything that may limit, hold or stop the arm: rows (the table), limits, force, reach, preflight."""
