"""A robot cell: cell (devices that share a clock), file (TOML schema), transform, options, open."""
