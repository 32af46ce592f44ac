"""The last centimetres: approach (straight down, close, lift) and height (how deep to close)."""
