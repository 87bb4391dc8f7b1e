"""A family: where an architecture keeps its feed-forward networks, as data."""

import functools
import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from scarprune.errors import ArgumentError, UnsupportedModelError
from scarprune.models import families as _package

Kind = Literal["gated", "fused", "plain", "conv1d"]


@dataclass(frozen=True, slots=True)
class Family:
    """One architecture.

    Attributes:
        name: what ``scarprune families`` calls it.
        description: one line for people: which models it covers.
        model_types: values of ``config.model_type``.
        kind: ``gated`` (three matrices), ``fused`` (gate and up in one, gate first), ``plain`` (two),
            ``conv1d`` (two, stored transposed).
        layers: path of the list of layers in the causal language model.
        down: path of the down projection in a layer; so ``up`` and, where gated, ``gate``. A fused
            family names its one module as both.
        width_key: the config's name for the intermediate size.
        width_fixed: why the width cannot change, where the architecture's code fixes it.
        logit_scale_key: config key of a factor of the head's output.
        logit_divisor_key: config key of a divisor of the head's output.
        softcap_key: config key of c in c * tanh(logits / c).
    """

    name: str
    description: str
    model_types: tuple[str, ...]
    kind: Kind
    layers: str
    down: str
    up: str
    gate: str | None = None
    width_key: str = "intermediate_size"
    width_fixed: str | None = None
    logit_scale_key: str | None = None
    logit_divisor_key: str | None = None
    softcap_key: str | None = None

    @property
    def gated(self) -> bool:
        """Whether a gate multiplies what ``up`` reads."""
        return self.gate is not None


_registry: dict[str, Family] = {}


def register_family(family: Family) -> Family:
    """Add ``family`` to those that ``family_of`` knows.

    Raises:
        ArgumentError: one of its model types is taken, or a gate is missing or too many for its kind.
    """
    if family.gated != (family.kind in ("gated", "fused")):
        raise ArgumentError(
            f"Family {family.name!r} is {family.kind}, which does not go with gate={family.gate!r}."
        )
    for model_type in family.model_types:
        other = _registry.get(model_type)
        if other is not None and other != family:
            raise ArgumentError(f"Model type {model_type!r} already belongs to the family {other.name!r}.")
    _registry.update(dict.fromkeys(family.model_types, family))
    return family


@functools.cache
def _discover() -> None:
    for module in pkgutil.iter_modules(_package.__path__):
        importlib.import_module(f"{_package.__name__}.{module.name}")


def families() -> list[Family]:
    """Every family, gated ones first, then by name."""
    _discover()
    order = ("gated", "fused", "plain", "conv1d")
    unique = {family.name: family for family in _registry.values()}
    return sorted(unique.values(), key=lambda f: (f.width_fixed is not None, order.index(f.kind), f.name))


def read(config: Any, key: str) -> Any:
    """``key`` of a config, be it a mapping or an object; None where it has none."""
    return config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)


def text_config(config: Any) -> Any:
    """The part of ``config`` that describes the language model: itself, or that of a multimodal wrapper."""
    inner = read(config, "text_config")
    return config if inner is None else inner


_EXPERT_KEYS = (
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "moe_num_experts",
    "num_moe_experts",
    "moe_intermediate_size",
)


def _has_experts(config: Any) -> bool:
    inner = read(config, "ffn_config")
    counts = (read(part, key) for part in (config, inner) if part is not None for key in _EXPERT_KEYS)
    return any(isinstance(count, int) and count > 1 for count in counts)


def refuse_experts(name: str) -> NoReturn:
    """Say that a model is a mixture of experts, in the one sentence there is for it."""
    raise UnsupportedModelError(
        f"{name!r} is a mixture of experts; these are not supported yet.",
        hint="Dense models are: see scarprune families.",
    )


def known_family(config: Any) -> Family | None:
    """The family of ``config`` (an object or the dict of a config.json), or None where it is unknown.

    Raises:
        UnsupportedModelError: a mixture of experts.
    """
    _discover()
    config = text_config(config)
    model_type = read(config, "model_type")
    family = _registry.get(str(model_type))
    if family is None and _has_experts(config):
        refuse_experts(str(model_type))
    return family


def family_of(config: Any) -> Family:
    """The family of ``config``.

    Raises:
        UnsupportedModelError: a mixture of experts, or an architecture that no family declares.
    """
    family = known_family(config)
    if family is None:
        known = ", ".join(sorted(_registry))
        raise UnsupportedModelError(
            f"{read(text_config(config), 'model_type')!r} is not one of the architectures scarprune knows.",
            hint=f"It knows {known}.",
        )
    return family
