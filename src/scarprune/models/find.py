"""The feed-forward sites of a model: by its family, else by structure."""

from typing import Any

from torch import nn

from scarprune.errors import UnsupportedModelError
from scarprune.models.family import family_of, known_family
from scarprune.models.layout import sites_of
from scarprune.models.site import Site
from scarprune.models.weights import linear_shape


def find_sites(model: nn.Module) -> list[Site]:
    """Every feed-forward network of ``model``, in layer order.

    Raises:
        UnsupportedModelError: a mixture of experts, or nothing that looks like a feed-forward network.
    """
    config: Any = getattr(model, "config", None)
    family = known_family(config)
    if family is not None:
        return sites_of(family, linear_shapes(model))
    family_of(config)
    raise UnsupportedModelError("unreachable")


def linear_shapes(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Path -> (in, out) of every module that multiplies by one matrix."""
    shapes = ((name, linear_shape(module)) for name, module in model.named_modules())
    return {name: shape for name, shape in shapes if shape is not None}
