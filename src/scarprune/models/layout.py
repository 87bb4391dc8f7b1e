"""Where the sites of a known family are, told from names and shapes alone."""

import re
from collections.abc import Mapping

from scarprune.errors import UnsupportedModelError
from scarprune.models.family import Family
from scarprune.models.site import Projection, Role, Site

_WRAPPED = ("language_model", "text_model")


def sites_of(family: Family, shapes: Mapping[str, tuple[int, int]]) -> list[Site]:
    """The sites among linear modules, in layer order.

    Args:
        family: says which modules of a layer to look for.
        shapes: module path -> (in, out). Paths may carry what a checkpoint or a multimodal wrapper puts in
            front of the list of layers, or lack it.

    Raises:
        UnsupportedModelError: no such modules, or shapes that do not make a feed-forward network.
    """
    layers = _layers(family, shapes)
    sites = [_site(family, prefix, layer, shapes) for layer, prefix in sorted(layers.items())]
    if not sites:
        raise UnsupportedModelError(
            f"This model says it is of the family {family.name}, but has no {family.layers}.0.{family.down}."
        )
    return sites


def _layers(family: Family, shapes: Mapping[str, tuple[int, int]]) -> dict[int, str]:
    """Layer index -> path of the layer."""
    last = re.escape(family.layers.rsplit(".", 1)[-1])
    pattern = re.compile(rf"((?:.*\.)?{last})\.(\d+)\.{re.escape(family.down)}")
    found: dict[str, dict[int, str]] = {}
    for name in shapes:
        match = pattern.fullmatch(name)
        if match is not None:
            found.setdefault(match[1], {})[int(match[2])] = f"{match[1]}.{match[2]}"
    if len(found) > 1:  # a vision tower may call its modules alike
        found = {k: v for k, v in found.items() if k == family.layers} or {
            k: v for k, v in found.items() if set(k.split(".")) & set(_WRAPPED)
        }
    return next(iter(found.values())) if len(found) == 1 else {}


def _site(family: Family, layer: str, index: int, shapes: Mapping[str, tuple[int, int]]) -> Site:
    fused = family.kind == "fused"
    transposed = family.kind == "conv1d"
    roles: list[tuple[Role, str | None]] = [("gate", family.gate), ("up", family.up), ("down", family.down)]
    projections = []
    for role, path in roles:
        if path is None:
            continue
        shared = fused and role != "down"
        projections.append(
            Projection(
                role=role,
                module=f"{layer}.{path}",
                transposed=transposed,
                part=int(shared and role == "up"),
                parts=2 if shared else 1,
            )
        )
    width, hidden = shapes[f"{layer}.{family.down}"]
    for reader in projections[:-1]:
        if shapes.get(reader.module) != (hidden, width * reader.parts):
            raise UnsupportedModelError(
                f"{reader.module} should read {hidden} and write {width * reader.parts} values, "
                f"but its (in, out) is {shapes.get(reader.module)}."
            )
    return Site(f"{layer}.{family.down}", index, width, hidden, family.gated, tuple(projections))
