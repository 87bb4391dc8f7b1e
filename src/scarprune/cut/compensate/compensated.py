"""What a compensation did to a model: carried on it, so that saving and reporting know."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

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
