"""The paper's experiment: one trial, its disturbances, statistics, pictures and sweeps."""
