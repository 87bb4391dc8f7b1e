"""A forward pass over token ids, whatever the signature of the architecture's ``forward``."""

import inspect
from typing import Any

import torch
from torch import nn


def forward(module: Any, input_ids: torch.Tensor, **options: Any) -> Any:
    """What ``module`` makes of ``input_ids`` [B, T], without a cache of keys and values.

    ``options`` are transformers' own, as ``output_hidden_states``.
    """
    parameters = inspect.signature(module.forward).parameters.values()
    caches = any(p.name == "use_cache" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    return module(input_ids=input_ids, **({"use_cache": False} if caches else {}), **options)


def input_device(model: nn.Module) -> torch.device:
    """Where ids go in; accelerate moves them on from the CPU where the embedding is offloaded."""
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    device: torch.device = embedding.weight.device
    return torch.device("cpu") if device.type == "meta" else device
