"""Measuring: streamed sums of activations and gradients at every site."""
