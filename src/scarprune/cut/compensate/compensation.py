"""What a compensation declares, the registry, and what it gives for each site."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from scarprune.cut.compensate.job import Job
from scarprune.errors import ArgumentError
from scarprune.models.site import Site

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a compensation makes of one site.

    Attributes:
        site: the network.
        weights: step -> name of a parameter in the cut model -> its new values, on the CPU. What a step does
            not name stays as the cut leaves it.
        facts: what the JSON says of the site; ``errors`` by step, ``none`` first, on held-out text.
    """

    site: Site
    weights: Mapping[str, Weights]
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Compensation:
    """A way to make up for channels that are gone.

    Attributes:
        name: what a user asks for.
        description: one line for people.
        source: the paper or the code it is from.
        steps: what it makes, the cheapest first; a later one is used only where it is no worse.
        fit: gives every site's new weights in layer order, and changes nothing; None for ``none``.
        adds_bias: whether it writes a bias of the down projection where the architecture has none.
        trains: whether it learns step by step, so that more text is worth its time.
    """

    name: str
    description: str
    source: str
    steps: tuple[str, ...]
    fit: Callable[[Job], Iterator[Fitted]] | None
    adds_bias: bool = False
    trains: bool = False


def compensations() -> list[Compensation]:
    """Every known compensation, the cheapest first."""
    return list(_registry().values())


def find_compensation(name: str) -> Compensation:
    """The compensation called ``name``.

    Raises:
        ArgumentError: there is none.
    """
    registry = _registry()
    if name not in registry:
        raise ArgumentError(f"There is no compensation {name!r}.", hint=f"There is: {', '.join(registry)}.")
    return registry[name]


@cache
def _registry() -> dict[str, Compensation]:
    """Name -> what is declared as ``COMPENSATION`` in a file of ``kinds/``."""
    package = importlib.import_module("scarprune.cut.compensate.kinds")
    modules = pkgutil.iter_modules(package.__path__, package.__name__ + ".")
    found: list[Compensation] = [importlib.import_module(module.name).COMPENSATION for module in modules]
    return {each.name: each for each in sorted(found, key=lambda each: (len(each.steps), each.name))}
