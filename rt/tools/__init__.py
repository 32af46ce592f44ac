"""General tools: clock, files, progress, worker processes, signals."""
