"""Hugging Face causal language models: their families, their feed-forward sites, loading."""
