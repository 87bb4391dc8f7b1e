"""What a compensation is given: the dense model, the plan, text to fit on and text to judge by."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from scarprune.cut.narrow import narrowed
from scarprune.errors import ArgumentError
from scarprune.evaluate.batches import tokens_at_once
from scarprune.models.find import family_of_model
from scarprune.models.forward import input_device
from scarprune.models.site import Projection
from scarprune.plan.plan import Plan
from scarprune.profile.walk import Layer, Walk
from scarprune.text.blocks import Blocks

DEFAULT_STEPS = 600


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long layers may be trained.

    Attributes:
        steps: of each layer; None is 600, or as many as ``seconds`` allow.
        seconds: of all layers together, divided evenly over those that are left.
        tokens: of a step.
    """

    steps: int | None = None
    seconds: float | None = None
    tokens: int = 4096

    def __post_init__(self) -> None:
        for name, value in (("steps", self.steps), ("seconds", self.seconds), ("tokens", self.tokens)):
            if value is not None and not value > 0:
                raise ArgumentError(f"Compensation cannot be bounded by {value} {name}.", hint="Give more.")


@dataclass(frozen=True)
class Job:
    """A compensation to be made.

    Attributes:
        model: dense, on one device, weights frozen, in evaluation mode.
        plan: which channels stay.
        width: channels that every site stores, padding included.
        fit: text to fit on.
        held: text that is never fitted on, to choose by.
        bounds: how long layers may be trained.
        dtypes: name of a parameter -> dtype it will be saved in.
    """

    model: nn.Module
    plan: Plan
    width: int
    fit: Blocks
    held: Blocks
    bounds: Bounds = Bounds()
    dtypes: dict[str, torch.dtype] = field(default_factory=dict)

    def walks(self) -> tuple[Walk, Walk]:
        """Over the text to fit on, and over the text to judge by, as many tokens at once as is fast."""
        tokens = tokens_at_once(self.model, input_device(self.model))
        batch = max(1, tokens // self.fit.ids.shape[1])
        return Walk(self.model, self.fit, batch), Walk(self.model, self.held, batch)

    @property
    def batch(self) -> int:
        """Blocks of a step of training."""
        return max(1, self.bounds.tokens // int(self.fit.ids.shape[1]))

    def cut(self, layer: Layer) -> nn.Module:
        """A copy of the layer without the channels that go."""
        keep = self.plan.keep[layer.site.name]
        return narrowed(layer, keep, self.width, family_of_model(self.model).width_key)

    def stored(self, projection: Projection, weight: torch.Tensor) -> tuple[str, torch.Tensor]:
        """Name and values of a down projection ``weight`` [d, k] as the cut model stores it."""
        padded = nn.functional.pad(weight, (0, self.width - weight.shape[1]))
        name = f"{projection.module}.weight"
        return name, self.rounded(name, padded.T if projection.transposed else padded)

    def rounded(self, name: str, values: torch.Tensor) -> torch.Tensor:
        """``values`` as they will be saved, on the CPU in the dtype that the model computes in."""
        computed: torch.dtype = self.model.dtype  # type: ignore[assignment]
        return values.detach().to("cpu", self.dtypes.get(name, computed)).to(computed).contiguous()


def facts_of(errors: dict[str, float], kept: str, **facts: Any) -> dict[str, Any]:
    """What the JSON says of a site: held-out ``errors`` by step, which one was kept, and ``facts``."""
    clean = {step: error if np.isfinite(error) else None for step, error in errors.items()}
    return {"errors": clean, "kept": kept, "fell_back": kept != list(errors)[-1], **facts}
