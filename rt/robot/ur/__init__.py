"""Universal Robots arms (CB3, e-Series) through ur-rtde: driver, link, streaming process, follower, lifetime."""
