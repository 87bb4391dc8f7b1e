"""Comparing ways to prune one model: scores, sparsities, compensations, protection and seeds."""
