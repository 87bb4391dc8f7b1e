"""The feed-forward sites of a model: by its family, else by structure."""

from typing import Any

from torch import nn

from scarprune.models.family import Family, known_family
from scarprune.models.layout import sites_of
from scarprune.models.site import Site
from scarprune.models.structure import detect_family
from scarprune.models.weights import linear_shape
from scarprune.runtime.progress import remark

_DETECTED = "_scarprune_family"


def find_sites(model: nn.Module) -> list[Site]:
    """Every feed-forward network of ``model``, in layer order.

    Raises:
        UnsupportedModelError: a mixture of experts, or nothing that looks like a feed-forward network.
    """
    shapes = ((name, linear_shape(module)) for name, module in model.named_modules())
    return sites_of(family_of_model(model), {name: shape for name, shape in shapes if shape is not None})


def family_of_model(model: Any) -> Family:
    """The declared family of ``model``, or one made up from its structure, with a remark the first time.

    Raises:
        UnsupportedModelError: a mixture of experts, or nothing that looks like a feed-forward network.
    """
    family = known_family(model.config) or getattr(model, _DETECTED, None)
    if family is None:
        family = detect_family(model)
        setattr(model, _DETECTED, family)
        readers = " and ".join(dict.fromkeys(path for path in (family.gate, family.up) if path))
        remark(
            f"{family.name} is no family scarprune knows. Its feed-forward networks were found by structure: "
            f"{readers} -> {family.down} in {family.layers}."
        )
    return family
