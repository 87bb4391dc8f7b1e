"""More text like a given one, from the dense model itself."""
