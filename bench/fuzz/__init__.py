"""Fuzzing of our parsers: targets (a function each), child (the engine), __main__ (the command)."""
