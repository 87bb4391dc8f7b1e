"""What the sums say of a model: its core, its halo, and how far either can be believed."""
