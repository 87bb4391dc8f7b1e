"""The repeated layers of a transformer."""

import re
from typing import Any

from torch import nn

from scarprune.models.find import find_sites

_LAYER = re.compile(r".*?\.\d+(?=\.)")  # the first number of "model.layers.3.mlp.down_proj" is the layer's


def find_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of ``model`` that have a feed-forward network, in order.

    Raises:
        UnsupportedModelError: no feed-forward networks are found in it.
    """
    paths: dict[str, Any] = {}
    for site in find_sites(model):
        match = _LAYER.match(site.name)
        if match is not None:
            paths[match[0]] = None
    return [model.get_submodule(path) for path in paths]
