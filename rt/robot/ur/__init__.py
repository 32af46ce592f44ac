"""Universal Robots arms (CB3, e-Series) through ur-rtde: driver, link, stream, follower, lifetime, state."""
