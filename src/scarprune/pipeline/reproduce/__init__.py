"""The paper's whole programme for one model: what ``scarprune reproduce`` does."""
