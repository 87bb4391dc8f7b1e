"""Tokens per second of models side by side: prefill and decode, alternating inside one run."""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from scarprune.errors import ArgumentError, MemoryBudgetError
from scarprune.models.context import context_length, vocabulary_size
from scarprune.models.forward import input_device
from scarprune.runtime.clock import timed
from scarprune.runtime.memory import allocated_bytes, is_out_of_memory, peak_bytes, reset_peak
from scarprune.runtime.progress import track

_WARM_UP = 2


@dataclass(frozen=True, slots=True)
class Load:
    """What each model is given to do.

    Attributes:
        batch: texts at once.
        length: tokens of a text that are read at once (prefill).
        new: tokens that are then added one by one (decode).
        rounds: how often, the models in turn.
        seed: of the tokens, which are drawn from the whole vocabulary.
    """

    batch: int = 1
    length: int = 512
    new: int = 32
    rounds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("batch", "length", "new", "rounds"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name} must be at least 1, and is {getattr(self, name)}.")


@dataclass(slots=True)
class Speed:
    """What one model did, round by round.

    Attributes:
        prefill: tokens read per second.
        decode: tokens added per second, of all texts together.
        peak_bytes: the most that was in use on a GPU, the other models' weights left out; None elsewhere.
    """

    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    peak_bytes: int | None = None


def measure_speed(models: Sequence[Any], load: Load) -> list[Speed]:
    """Time ``models`` in turn (A B A B ...), each round on the same shapes; weights stay where they are.

    Prefill is one forward pass over ``batch`` texts of ``length`` tokens that keeps keys and values; logits
    of the last position alone, where the architecture can. Decode adds ``new`` tokens to it, one forward
    pass each, with the cache that the model makes by itself. Nothing is compiled.

    Raises:
        ArgumentError: texts longer than a model's context.
        MemoryBudgetError: the texts do not fit.
    """
    for model in models:
        most = context_length(model.config)
        if most is not None and load.length + load.new > most:
            raise ArgumentError(
                f"{load.length} + {load.new} tokens are more than the model's context of {most}.",
                hint="Use a smaller --length or --new.",
            )
    speeds = [Speed() for _ in models]
    runs = [_Run(model, load) for model in models]
    with torch.no_grad(), track("Timing", (_WARM_UP + load.rounds) * len(models), "runs") as advance:
        for number in range(-_WARM_UP, load.rounds):
            for run, speed in zip(runs, speeds, strict=True):
                try:
                    prefill, decode, peak = run.once()
                except RuntimeError as error:
                    if not is_out_of_memory(error):
                        raise
                    raise MemoryBudgetError(
                        f"{load.batch} texts of {load.length} tokens do not fit.",
                        hint="Use a smaller --batch, --length or --dtype.",
                    ) from error
                if number >= 0:
                    speed.prefill.append(load.batch * load.length / prefill)
                    speed.decode.append(load.batch * load.new / decode)
                    speed.peak_bytes = max(peak, speed.peak_bytes or 0) if peak else None
                advance(1)
    return speeds


class _Run:
    """One model and its tokens."""

    def __init__(self, model: Any, load: Load) -> None:
        self.model = model
        self.device = input_device(model)
        generator = torch.Generator().manual_seed(load.seed)
        shape = (load.batch, load.length + load.new)
        ids = torch.randint(0, vocabulary_size(model), shape, generator=generator).to(self.device)
        self.text, self.added = ids[:, : load.length], torch.split(ids[:, load.length :], 1, dim=1)
        keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.options: dict[str, Any] = {"use_cache": True, **({"logits_to_keep": 1} if keeps else {})}
        self.weights = sum(p.numel() * p.element_size() for p in model.parameters())

    def once(self) -> tuple[float, float, int | None]:
        """Seconds of prefill and of decode, and the peak in bytes on a GPU."""
        reset_peak(self.device)
        before = allocated_bytes(self.device)
        prefill, out = timed(lambda: self.model(input_ids=self.text, **self.options), self.device)
        past = out.past_key_values
        del out

        def decode() -> None:
            cache = past
            for token in self.added:
                cache = self.model(input_ids=token, past_key_values=cache, **self.options).past_key_values

        seconds, _ = timed(decode, self.device)
        peak = peak_bytes(self.device)
        if peak is None or before is None:
            return prefill, seconds, None
        return prefill, seconds, peak - before + self.weights
