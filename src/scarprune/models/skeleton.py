"""A model from its config alone, and its weights by name from the files of a checkpoint."""

from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn

from scarprune.errors import ArtifactError
from scarprune.models.checkpoint import Checkpoint, Stored
from scarprune.models.layers import find_layers
from scarprune.models.names import canonical
from scarprune.models.quiet import quiet
from scarprune.models.shelf import DTYPES, FileShelf, read_stored
from scarprune.models.streamed import Streamed, settle


def skeleton(automatic: Any, config: Any, dtype: torch.dtype, *, trust_remote_code: bool = False) -> Any:
    """The model of ``config`` with its buffers, and with weights that have shapes and no values."""
    with init_empty_weights(include_buffers=False), quiet():
        # Buffers are computed in float32, as from_pretrained does.
        model = automatic.from_config(config, dtype=torch.float32, trust_remote_code=trust_remote_code)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.to(dtype), requires_grad=False))
    model.config.dtype = dtype
    model.tie_weights()
    return model.requires_grad_(False).eval()


def fill_streamed(model: Any, checkpoint: Checkpoint, device: torch.device) -> None:
    """Give a ``skeleton`` its weights: its layers' come from the files when they are called, the others now.

    Raises:
        ArtifactError: a weight is not in the files, under any name it may have, or has another shape there.
        UnsupportedModelError: no layers are recognised.
    """
    stored = {canonical(name): tensor for name, tensor in checkpoint.tensors.items()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def find(parameter: nn.Parameter) -> Stored:
        name = names[id(parameter)]
        found = stored.get(canonical(name))
        if found is None or found.shape != tuple(parameter.shape) or found.dtype not in DTYPES:
            there = "is missing" if found is None else f"is stored as {found.dtype} {list(found.shape)}"
            raise ArtifactError(
                f"{checkpoint.folder} cannot be streamed from its files: {name} {there}.",
                hint="Use more --memory, so that it is loaded whole.",
            )
        return found

    layers = [{name: find(p) for name, p in layer.named_parameters()} for layer in find_layers(model)]
    inside = {id(p) for layer in find_layers(model) for p in layer.parameters()}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in inside and parameter.is_meta:
                values = torch.empty(parameter.shape, dtype=parameter.dtype)
                read_stored(find(parameter), values)
                setattr(module, name, nn.Parameter(values, requires_grad=False))
    model.tie_weights()
    settle(model, device)
    Streamed(model, FileShelf(layers), device)
