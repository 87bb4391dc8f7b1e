"""What a compensation did to a model: carried on it, so that saving and reporting know."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from scarprune.cut.changed import Changed
from scarprune.errors import UnsupportedModelError

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}
_WORDS = {2: (torch.int16, np.uint16), 4: (torch.int32, np.uint32), 8: (torch.int64, np.uint64)}
_CARRIED = "_scarprune_compensated"


@dataclass(frozen=True)
class Compensated:
    """What a compensation did to a cut model.

    Attributes:
        name: what was asked for.
        kept: the step that was kept: ``none``, ``bias``, ``ls`` or ``refit``.
        seconds: that it took.
        losses: nats per token on held-out calibration text by step.
        sites: what ``Fitted.facts`` says, by site.
        changed: names of the parameters that are no slices of the source.
        added: names of biases that the architecture does not have.
    """

    name: str
    kept: str
    seconds: float
    losses: Mapping[str, float | None]
    sites: Mapping[str, Mapping[str, Any]]
    changed: tuple[str, ...]
    added: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """What ``prune --json`` says."""
        return {
            "name": self.name,
            "kept": self.kept,
            "fell_back": self.kept != self.name,
            "seconds": self.seconds,
            "held_out_nats_per_token": dict(self.losses),
            "sites": [{"name": name, **facts} for name, facts in self.sites.items()],
        }


def carry(model: nn.Module, done: Compensated) -> None:
    """Remember ``done`` on ``model``."""
    setattr(model, _CARRIED, done)


def compensated(model: nn.Module) -> Compensated | None:
    """What was done to ``model`` to make up for its cut; None where nothing was."""
    return getattr(model, _CARRIED, None)


def changed(model: nn.Module) -> Changed | None:
    """What was changed in ``model``, as files store it; None where nothing was asked for."""
    done = compensated(model)
    if done is None:
        return None
    return Changed(done.as_json(), {name: _words(model.get_parameter(name)) for name in done.changed})


def refuse_added(model: nn.Module) -> None:
    """Refuse to save a model that a compensation gave biases which stock transformers would not load.

    Raises:
        UnsupportedModelError: it did.
    """
    done = compensated(model)
    if done is not None and done.added:
        raise UnsupportedModelError(
            f"{done.added[0]} was added, and {type(model).__name__} has no such bias in stock transformers: "
            "the model cannot be saved.",
            hint="Use compensation ls or refit, or evaluate it in memory.",
        )


def _words(tensor: torch.Tensor) -> Callable[[str], np.ndarray]:
    def words(dtype: str) -> np.ndarray:
        values = tensor.detach().to("cpu", _DTYPES[dtype]).contiguous()
        signed, unsigned = _WORDS[values.element_size()]
        return values.view(signed).numpy().view(unsigned)

    return words
