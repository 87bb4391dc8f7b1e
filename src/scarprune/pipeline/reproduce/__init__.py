"""The paper's whole programme for one model: what ``scarprune reproduce`` does."""

from scarprune.pipeline.reproduce.run import reproduce

__all__ = ["reproduce"]
