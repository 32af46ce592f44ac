"""From observations to a transform, its uncertainty, and the reasons to doubt it."""
