"""Narrower feed-forward networks: the same modules with smaller matrices, in a model or a copy of a layer."""

import copy

import numpy as np
import torch
from torch import nn

from scarprune.cut.slice import Selection, selections
from scarprune.models.site import Site
from scarprune.profile.walk import Layer

# What feed-forward modules call the intermediate size, besides the config's own name for it.
_WIDTH_NAMES = ("intermediate_size", "ffn_dim", "d_ff", "inner_dim")
# Linear and Conv1D: attribute that holds the size of a weight's dimension, for each dimension.
_SIZES = {"in_features": 1, "out_features": 0, "nx": 0, "nf": 1}


def narrow(
    root: nn.Module, site: Site, keep: np.ndarray, width: int, width_key: str, *, within: str = ""
) -> None:
    """Cut one feed-forward network in place.

    Args:
        root: what holds the network.
        site: with its projections.
        keep: int64, kept channels, ascending.
        width: channels to store; what is more than ``keep`` is zeros.
        width_key: the config's name for the width.
        within: path of ``root`` in the model that the site's paths start from.
    """

    def find(path: str) -> nn.Module:
        return root.get_submodule(path.removeprefix(within).removeprefix("."))

    for module, parameter, selection in selections(site, keep, width):
        _cut(find(module), parameter, selection)
    ffn = find(site.name.rpartition(".")[0])
    for name in {*_WIDTH_NAMES, width_key}:  # the sizes that a feed-forward module remembers for itself
        if vars(ffn).get(name) == site.width:
            setattr(ffn, name, width)


def narrowed(layer: Layer, keep: np.ndarray, width: int, width_key: str) -> nn.Module:
    """A copy of a layer with its network cut; tensors of anything else are shared with the layer."""
    own = {projection.module for projection in layer.site.projections}
    tensors = [*layer.module.named_parameters(layer.name), *layer.module.named_buffers(layer.name)]
    shared = {id(tensor): tensor for name, tensor in tensors if name.rpartition(".")[0] not in own}
    module: nn.Module = copy.deepcopy(layer.module, shared)
    narrow(module, layer.site, keep, width, width_key, within=layer.name)
    return module


def select(tensor: torch.Tensor, selection: Selection) -> torch.Tensor:
    """What stays of ``tensor``, as a copy on its device."""
    index = torch.from_numpy(np.maximum(selection.index, 0)).to(tensor.device)
    kept = tensor.index_select(selection.dim, index)
    padding = np.flatnonzero(selection.index < 0)
    if len(padding):
        kept.index_fill_(selection.dim, torch.from_numpy(padding).to(tensor.device), 0)
    return kept


def _cut(module: nn.Module, parameter: str, selection: Selection) -> None:
    old = getattr(module, parameter, None)
    if old is None or selection.whole:
        return
    setattr(module, parameter, nn.Parameter(select(old.data, selection), requires_grad=old.requires_grad))
    if parameter == "weight":
        for attribute, dim in _SIZES.items():
            if dim == selection.dim and hasattr(module, attribute):
                setattr(module, attribute, len(selection.index))
