"""Cutting channels out of weights: in memory, or from one checkpoint folder to another."""
