"""What a model can read: how many tokens at once, and which ids."""

from typing import TYPE_CHECKING, Any

from scarprune.models.family import read, text_config

if TYPE_CHECKING:  # a cut from folder to folder asks for the context without loading torch
    from torch import nn

# "n_positions", "max_seq_len": what GPT-2's and MPT's configs call it.
_KEYS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "n_ctx",
)


def context_length(config: Any) -> int | None:
    """The longest block the architecture was made for, or None where its config sets no limit."""
    config = text_config(config)
    found = (read(config, key) for key in _KEYS)
    return next((length for length in found if isinstance(length, int) and length > 0), None)


def vocabulary_size(model: "nn.Module") -> int:
    """Rows of the input embedding: ids below this number can be read."""
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    return int(embedding.num_embeddings)
