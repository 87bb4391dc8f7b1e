"""How a model is healed."""

import math
import statistics
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch

from scarprune.errors import ArgumentError
from scarprune.runtime.device import DTYPES

Compile = Literal["auto", "none", "objective", "layers"]


# On SmolLM2-135M a minute at half of the channels, 0.37 nats from the teacher, is best at 1e-3, and half a
# minute at a fifth of them, 0.14 nats from it, at 4e-4 (docs/lab-log.md): that much for each nat.
_SHARE_OF_SIZE = 1.35e-2
_LEAST_NATS, _MOST_NATS = 0.1, 0.5  # little more than what was tried
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
            share of the size of the student's weights for each nat to mend (``usual_rate``), for adapters
            3e-4.
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

    def rate_for(self, student: Any, nats: float) -> float:
        """The highest learning rate for a student that is ``nats`` a token away from its teacher."""
        if self.lr != "auto":
            return self.lr
        return usual_rate(student, nats) if self.lora is None else _LORA_RATE

    def compute_dtype(self, device: torch.device) -> torch.dtype:
        """The dtype that both models compute in on ``device``."""
        if self.dtype != "auto":
            return DTYPES[self.dtype]
        return torch.bfloat16 if device.type == "cuda" else torch.float32

    def as_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def usual_rate(student: Any, nats: float) -> float:
    """The learning rate by what there is to mend: a share of the matrices' median size for each nat a token.

    Adam moves every number by about the rate, so that what matters is the rate beside the numbers; and where
    little is to be mended, a high rate undoes more than it mends.
    """
    matrices = [p.detach() for p in student.parameters() if p.dim() > 1]
    norms = [float(torch.linalg.vector_norm(p, dtype=torch.float32)) for p in matrices]
    sizes = [norm / math.sqrt(p.numel()) for norm, p in zip(norms, matrices, strict=True)]
    return _SHARE_OF_SIZE * min(max(nats, _LEAST_NATS), _MOST_NATS) * statistics.median(sizes)
