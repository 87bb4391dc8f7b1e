"""Making up for what a cut removes: the weights that stay are changed, the architecture is not."""
