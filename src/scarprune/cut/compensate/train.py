"""Training one layer's feed-forward network to give wanted hidden states: Adam, with a cosine rate."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from scarprune.cut.compensate.job import DEFAULT_STEPS, Bounds
from scarprune.cut.compensate.objective import Loss
from scarprune.profile.hidden import HiddenStates

# Of each matrix's root mean square: about 1e-3 on SmolLM2, where 0.19 is usual.
RATE = 5e-3
_LOOK_AT_THE_CLOCK = 16  # steps; each look waits for the device


@dataclass
class Pace:
    """How far a layer's training has come, by steps and by the clock, whichever is ahead."""

    steps: int | None
    seconds: float | None
    began: float = field(default_factory=time.perf_counter)
    _elapsed: float = 0.0

    def progress(self, step: int, device: torch.device) -> float:
        """From 0 to 1 before ``step``; at 1 it is over."""
        if self.seconds is not None and step % _LOOK_AT_THE_CLOCK == 0:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            self._elapsed = time.perf_counter() - self.began
        by_clock = 0.0 if self.seconds is None else self._elapsed / max(self.seconds, 1e-9)
        return min(1.0, max(by_clock, 0.0 if self.steps is None else step / self.steps))


def pace_of(bounds: Bounds, layers_left: int, elapsed: float) -> Pace:
    """The next layer's share of what ``bounds`` leave after ``elapsed`` seconds."""
    if bounds.seconds is None:
        return Pace(bounds.steps or DEFAULT_STEPS, None)
    return Pace(bounds.steps, max(0.0, bounds.seconds - elapsed) / layers_left)


def train(
    index: int,
    module: nn.Module,
    names: list[str],
    given: HiddenStates,
    wanted: HiddenStates,
    loss: Loss,
    pace: Pace,
    *,
    rate: float = RATE,
    seed: int = 0,
) -> dict[str, torch.Tensor]:
    """Train parameters of a layer so that it turns ``given`` into ``wanted``.

    Args:
        index: of the layer in the walk.
        module: the layer, which stays as it is.
        names: its parameters to train, from a float32 copy of them.
        given: hidden states before the layer.
        wanted: hidden states of the same tokens after it.
        loss: of the error.
        pace: how long.
        rate: the first learning rate, as a share of each parameter's root mean square.
        seed: of the order of the blocks.

    Returns:
        Name -> trained values, float32.
    """
    walk, dtypes = given.walk, {name: module.get_parameter(name).dtype for name in names}
    masters = {name: module.get_parameter(name).detach().float().clone().requires_grad_() for name in names}
    sizes = {name: float(values.detach().square().mean().sqrt()) for name, values in masters.items()}
    usual = max(sizes.values())
    groups: list[dict[str, Any]] = [
        {"params": [values], "lr": 0.0, "rate": rate * (sizes[name] if values.dim() > 1 else usual)}
        for name, values in masters.items()
    ]
    optimizer = torch.optim.Adam(groups, fused=walk.device.type == "cuda")
    draws = given.draws(seed)
    step = 0
    while (progress := pace.progress(step, walk.device)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * 0.5 * (1 + math.cos(math.pi * progress))
        length, rows = next(draws)
        weights = {name: values.to(dtypes[name]) for name, values in masters.items()}

        def layer(
            hidden: torch.Tensor, *args: Any, weights: dict[str, torch.Tensor] = weights, **kwargs: Any
        ) -> Any:
            return functional_call(module, weights, (hidden, *args), kwargs)

        with torch.enable_grad():
            after = walk.step(index, given.take(length, rows), layer)
            loss(after.float() - wanted.take(length, rows).float()).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        step += 1
    return {name: values.detach() for name, values in masters.items()}
