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


_DEVICE = "_scarprune_device"


def carry_device(model: nn.Module, device: torch.device) -> None:
    """Remember where ``model`` computes, where that is not where its weights lie."""
    setattr(model, _DEVICE, device)


def input_device(model: nn.Module) -> torch.device:
    """Where ids go in; accelerate moves them on from the CPU where the embedding is offloaded."""
    carried: torch.device | None = getattr(model, _DEVICE, None)
    if carried is not None:
        return carried
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
    device: torch.device = embedding.weight.device
    return torch.device("cpu") if device.type == "meta" else device


def device_of(model: nn.Module) -> torch.device:
    """Where ``model`` computes: as carried, or where its first weights are; the CPU if all are offloaded."""
    devices = (p.device for p in model.parameters() if p.device.type != "meta")
    carried: torch.device | None = getattr(model, _DEVICE, None)
    return carried or next(devices, torch.device("cpu"))
