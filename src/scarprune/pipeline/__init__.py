"""The README's story: one call per stage, and the whole of it."""
