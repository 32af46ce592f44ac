"""Each cycle of a run: schema, ring in shared memory, recorder (MCAP), report of the run."""
