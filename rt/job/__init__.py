"""The whole job of rt.clear: look, pick, verify, carry, put down, again, until the table is empty."""
