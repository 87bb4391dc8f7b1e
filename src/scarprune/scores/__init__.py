"""Scores: pure functions of a profile's sums that rank channels; high means keep."""
