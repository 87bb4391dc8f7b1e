"""How a model is healed."""

import math
import statistics
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch

from scarprune.errors import ArgumentError
from scarprune.runtime.device import DTYPES

Compile = Literal["auto", "none", "objective", "layers"]


# 5e-4 on SmolLM2-135M. There 3e-4 is too slow and 1e-3 good for a minute at half of the channels; 8e-4 undoes
# more at a fifth of them than half a minute mends, and 4e-4 is better than 2e-4 (docs/lab-log.md).
_SHARE_OF_SIZE = 2.5e-3
_LORA_RATE = 3e-4  # adapters are a product of two factors, one of which begins at zero


@dataclass(frozen=True, slots=True)
class Settings:
    """How a model is healed; the defaults are those of a model of some hundred million parameters.

    Attributes:
        seconds: budget of wall clock; with no budget at all, 60.
        tokens: budget of tokens read.
        steps: budget of optimizer steps.
        batch: blocks of one optimizer step, over all processes.
        micro: blocks at once on one device; ``auto`` is what fits, the rest is accumulated.
        lr: the highest learning rate, of AdamW with betas 0.9 and 0.95 and no weight decay; ``auto`` is a
            share of the size of the student's weights (``usual_rate``), for adapters 3e-4.
        warmup: share of the budget over which the rate goes up; a cosine takes it down to zero afterwards.
        clip: the largest norm of a gradient.
        hidden_weight: what the mean relative squared error of hidden states between layers counts for.
        lora: rank of LoRA adapters on every matrix of the layers; None trains all weights.
        checkpointing: make activations of a layer again in the backward pass instead of keeping them.
        cuts: different cuttings of the text to blocks, for which the teacher's final hidden states are kept
            where memory allows; None cuts anew in every epoch, and keeps nothing.
        dtype: of computing; ``auto`` is bfloat16 on a GPU, float32 elsewhere. Weights train in float32.
        compile: what torch compiles: nothing, the ``objective``, or the ``layers`` as well.
        graph: whether a step is captured as a CUDA graph; ``auto`` where that works.
        judgements: how often the held-out blocks are judged, evenly over the budget.
        seed: of the order of the text, and of adapters.
    """

    seconds: float | None = None
    tokens: int | None = None
    steps: int | None = None
    batch: int = 16
    micro: int | Literal["auto"] = "auto"
    lr: float | Literal["auto"] = "auto"
    warmup: float = 0.05
    clip: float = 1.0
    hidden_weight: float = 0.0
    lora: int | None = None
    checkpointing: bool = False
    cuts: int | None = None
    dtype: str = "auto"
    compile: Compile = "auto"
    graph: bool | Literal["auto"] = "auto"
    judgements: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        positive = ("batch", "lr", "clip", "judgements", "lora", "cuts", "micro")
        for name in positive:
            value = getattr(self, name)
            if value not in (None, "auto") and not (isinstance(value, int | float) and 0 < value < math.inf):
                raise ArgumentError(f"{name} must be positive, not {value!r}.")
        if not 0 <= self.warmup < 1:
            raise ArgumentError(f"warmup is a share of the budget from 0 to below 1, not {self.warmup}.")
        if not 0 <= self.hidden_weight < math.inf:
            raise ArgumentError(f"hidden_weight must be 0 or more, not {self.hidden_weight}.")
        if self.compile not in ("auto", "none", "objective", "layers"):
            raise ArgumentError(f"compile is auto, none, objective or layers, not {self.compile!r}.")
        if self.dtype not in ("auto", "float32", "bfloat16"):
            raise ArgumentError(
                f"A model is healed in bfloat16 or float32, not in {self.dtype!r}.", hint="Use auto."
            )

    def for_model(self, student: Any) -> "Settings":
        """The same with a number for the learning rate."""
        if self.lr != "auto":
            return self
        return replace(self, lr=usual_rate(student) if self.lora is None else _LORA_RATE)

    def compute_dtype(self, device: torch.device) -> torch.dtype:
        """The dtype that both models compute in on ``device``."""
        if self.dtype != "auto":
            return DTYPES[self.dtype]
        return torch.bfloat16 if device.type == "cuda" else torch.float32

    def as_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def usual_rate(student: Any) -> float:
    """The learning rate for a model of this size of weights: a share of their matrices' median size.

    Adam moves every number by about the rate, so that what matters is the rate beside the numbers.
    """
    matrices = [p.detach() for p in student.parameters() if p.dim() > 1]
    norms = [float(torch.linalg.vector_norm(p, dtype=torch.float32)) for p in matrices]
    sizes = [norm / math.sqrt(p.numel()) for norm, p in zip(norms, matrices, strict=True)]
    return _SHARE_OF_SIZE * statistics.median(sizes)
