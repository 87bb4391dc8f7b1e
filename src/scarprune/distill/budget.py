"""How long to train, and the learning rate that follows from how much of that is gone."""

import math
from dataclasses import dataclass

from scarprune.errors import ArgumentError

DEFAULT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Budget:
    """The end of training: whichever comes first of a number of steps and a time.

    Attributes:
        steps: of the optimizer; None is no limit.
        seconds: of wall clock from the call to its end, judging and preparing included; None is no limit.
    """

    steps: int | None
    seconds: float | None

    def fraction(self, step: int, elapsed: float, began: float) -> float:
        """How much is gone in the middle of step number ``step``, 0 to 1.

        Args:
            step: steps done before it.
            elapsed: seconds since the call.
            began: what ``elapsed`` was when training began.
        """
        gone = [0.0]
        if self.steps is not None:
            gone.append((step + 0.5) / self.steps)
        if self.seconds is not None:
            left = self.seconds - began
            gone.append((elapsed - began) / left if left > 0 else 1.0)
        return min(max(gone), 1.0)

    def ended(self, step: int, elapsed: float) -> bool:
        """Whether no step may begin any more."""
        return (self.steps is not None and step >= self.steps) or (
            self.seconds is not None and elapsed >= self.seconds
        )


def make_budget(steps: int | None, tokens: int | None, seconds: float | None, step_tokens: int) -> Budget:
    """The budget that was asked for; a minute where nothing was.

    Args:
        steps: of the optimizer.
        tokens: to read, rounded up to whole steps.
        seconds: of wall clock.
        step_tokens: tokens of one step.

    Raises:
        ArgumentError: a budget that is not positive.
    """
    for name, value in (("steps", steps), ("tokens", tokens), ("seconds", seconds)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ArgumentError(f"The budget of {name} must be positive, not {value}.")
    if steps is None and tokens is None and seconds is None:
        seconds = DEFAULT_SECONDS
    limits = [steps] if tokens is None else [steps, math.ceil(tokens / step_tokens)]
    asked = [limit for limit in limits if limit is not None]
    return Budget(min(asked) if asked else None, seconds)


def rate_factor(fraction: float, warmup: float) -> float:
    """Share of the highest learning rate: linear up over ``warmup`` of the budget, then a cosine to zero."""
    if fraction < warmup:
        return fraction / warmup
    return 0.5 * (1.0 + math.cos(math.pi * (fraction - warmup) / (1.0 - warmup)))
