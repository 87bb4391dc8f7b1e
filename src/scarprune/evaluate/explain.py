"""Why a cut model is as fast as it is: sentences from its shapes, its times and what the device can do."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from scarprune.evaluate.speed import Load, Speed
from scarprune.models.cost import Cost, Parts
from scarprune.plan.allocate import round_up
from scarprune.plan.readiness import readiness
from scarprune.runtime.clock import Ceiling
from scarprune.stats.summary import Spread, spread

Phase = Literal["prefill", "decode"]
PHASES: tuple[Phase, ...] = ("prefill", "decode")
_TILE = 64  # bfloat16 numbers of the 128 bytes that tensor cores want aligned; see plan/readiness.py
_BOUND = 0.5  # of the device's rate: below it, something else takes most of the time
_NOISY = 1.3  # rounds that differ so much tell more of the machine than of the model


@dataclass(frozen=True, slots=True)
class Timed:
    """A model's cost and its times on one load.

    Attributes:
        cost: of its shapes.
        speed: round by round.
        load: what it was given.
        ceiling: of the device in the same run.
        device: its type: cuda, cpu, mps.
        itemsize: bytes of a number that was computed with.
    """

    cost: Cost
    speed: Speed
    load: Load
    ceiling: Ceiling
    device: str
    itemsize: int

    @property
    def tensor_cores(self) -> bool:
        """Whether products run on units whose tiles the width should fill."""
        return self.device == "cuda" and self.itemsize == 2

    def work(self, phase: Phase) -> Parts:
        """Operations of a prefill of all texts, or bytes read for one new token of each, midway."""
        if phase == "prefill":
            each = self.cost.prefill_operations(self.load.length)
            return Parts(*(self.load.batch * part for part in (each.ffn, each.attention, each.vocabulary)))
        return self.cost.decode_bytes(self.load.length + self.load.new // 2, self.load.batch)

    def rate(self, phase: Phase) -> float:
        """Median over rounds, in tokens per second."""
        return float(np.median(getattr(self.speed, phase)))

    def seconds(self, phase: Phase) -> float:
        """Median time of that work."""
        return self.load.batch * (self.load.length if phase == "prefill" else 1) / self.rate(phase)

    def share_of_ceiling(self, phase: Phase) -> float:
        """How much of the device's own rate that work reaches; above 1 where caches help."""
        best = self.ceiling.operations_per_second if phase == "prefill" else self.ceiling.bytes_per_second
        return self.work(phase).total / best / self.seconds(phase)


def ratio(dense: Speed, small: Speed, phase: Phase) -> Spread:
    """Small model's rate over the dense one's, paired by rounds."""
    return spread(s / d for s, d in zip(getattr(small, phase), getattr(dense, phase), strict=True))


def limit(dense: Timed, small: Timed, phase: Phase) -> float:
    """How many times as fast the small model can become if nothing but that work takes time."""
    return dense.work(phase).total / small.work(phase).total


def reasons(dense: Timed, small: Timed) -> list[str]:
    """What the shapes allow, what keeps the small model from it, and whether the times can be trusted."""
    unreached = [sentence for phase in PHASES for sentence in _unreached(dense, phase)]
    return [_shares(dense, small), *_width(small), *(_noise(dense) or unreached)]


def _shares(dense: Timed, small: Timed) -> str:
    prefill, decode = dense.work("prefill"), dense.work("decode")
    left = small.cost.matrices.ffn / dense.cost.matrices.ffn
    shares = f"{prefill.ffn_share:.0%} of prefill's operations and {decode.ffn_share:.0%} of decode's bytes"
    if left >= 1:
        return f"The feed-forward networks are {shares}, and are not smaller in the second model."
    limits = " and ".join(f"{limit(dense, small, phase):.2f} ({phase})" for phase in PHASES)
    return (
        f"The feed-forward networks are {shares}; {left:.0%} of them are left, and attention and vocabulary "
        f"stay, so the rates can become {limits} times the whole model's at best."
    )


def _width(small: Timed) -> list[str]:
    found = readiness(small.cost.widths)
    if not small.tensor_cores or found.divisor % _TILE == 0:
        return []
    return [
        f"{found.widest:,} channels are no multiple of {_TILE}: tensor cores compute whole tiles, and the "
        f"last is partly empty. {round_up(found.widest, _TILE):,} may be faster (--multiple-of {_TILE})."
    ]


def _unreached(dense: Timed, phase: Phase) -> list[str]:
    share = dense.share_of_ceiling(phase)
    if share >= _BOUND:
        return []
    if phase == "prefill":
        return [
            f"Prefill of the whole model reaches {share:.0%} of this device's rate of large matrix products, "
            f"{dense.ceiling.operations_per_second / 1e12:.3g} TFLOP/s: those of "
            f"{dense.load.batch * dense.load.length:,} tokens are too small to fill it, and narrower ones "
            "gain less. A larger --batch or --length shows more of the difference."
        ]
    server = ", or a server that records them (CUDA graphs)," if dense.device == "cuda" else ""
    return [
        f"Decode of the whole model takes {1000 * dense.seconds(phase):.3g} ms a step, {1 / share:.1f} times "
        f"what reading {dense.work(phase).total / 1e6:,.0f} MB takes at this device's "
        f"{dense.ceiling.bytes_per_second / 1e9:,.0f} GB/s: most of it is starting the operations of "
        f"{dense.cost.layers} layers one by one, whatever their width. A larger --batch{server} shows more "
        "of the difference."
    ]


def _noise(dense: Timed) -> list[str]:
    rounds = {phase: getattr(dense.speed, phase) for phase in PHASES}
    apart = max(max(rates) / min(rates) for rates in rounds.values())
    if apart < _NOISY:
        return []
    return [
        f"Rounds of the same model differ by up to {apart:.1f} times: something else runs on this device, "
        "and small differences mean nothing."
    ]


def verdict(measured: Spread, phase: Phase) -> str:
    """One sentence: faster or slower in every round, or neither."""
    low, middle, high = (float(getattr(measured, name) or math.nan) for name in ("min", "median", "max"))
    numbers = f"{middle:.2f} times the rate ({low:.2f} to {high:.2f} over rounds)"
    if low > 1:
        return f"{phase}: faster in every round, {numbers}"
    if high < 1:
        return f"{phase}: slower in every round, {numbers}"
    return f"{phase}: no difference beyond the spread, {numbers}"


def medians(rates: Sequence[float]) -> dict[str, object]:
    """Median, range and all rounds of a rate in tokens per second."""
    return {**spread(rates).as_json(), "rounds": list(rates)}
