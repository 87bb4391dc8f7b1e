"""Low-rank adapters on every matrix of the layers, through peft."""

import importlib.util
from typing import Any

from scarprune.errors import ArgumentError
from scarprune.models.layers import find_layers
from scarprune.models.quiet import quiet
from scarprune.models.weights import linear_shape


def add_adapters(model: Any, rank: int, seed: int) -> Any:
    """Put adapters that do nothing yet into ``model``, in place; they alone require gradients.

    Returns:
        peft's wrapper, for ``merge``.

    Raises:
        ArgumentError: peft is not installed.
    """
    if importlib.util.find_spec("peft") is None:
        raise ArgumentError(
            "LoRA needs the package peft, which is not installed.",
            hint='Install it (pip install "scarprune[heal]"), or train all weights.',
        )
    import peft
    import torch

    layers = {id(module) for layer in find_layers(model) for module in layer.modules()}
    matrices = [
        name
        for name, module in model.named_modules()
        if id(module) in layers and linear_shape(module) is not None
    ]
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=matrices)
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(seed)
        return peft.get_peft_model(model, config)


def merge(wrapper: Any) -> None:
    """Add the adapters to the weights they sit on and take them away: the model is an ordinary one again."""
    with quiet():
        wrapper.merge_and_unload()
