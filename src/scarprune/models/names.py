"""Names of tensors: what stays the same between a checkpoint's files and the model in memory."""

_WRAPPERS = frozenset({"model", "transformer", "language_model", "gpt_neox"})
OUTPUT = "lm_head.weight"


def canonical(name: str) -> str:
    """``name`` without what checkpoints and versions of transformers put in front or call differently.

    ``transformer.h.0.mlp.c_fc.weight`` and ``h.0.mlp.c_fc.weight`` are the same tensor of GPT-2.
    """
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _WRAPPERS:
        parts.pop(0)
    joined = ".".join(parts)
    return OUTPUT if joined == "embed_out.weight" else joined
