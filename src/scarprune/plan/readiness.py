"""What a width is ready for: the multiples that kernels, quantized formats and tensor parallelism need."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from scarprune.plan.allocate import round_up

_GROUP = 128
_SPLITS = (2, 4, 8, 16)


@dataclass(frozen=True, slots=True)
class Need:
    """A multiple that something needs the channels of a site to be.

    Attributes:
        name: what needs it, as people say it.
        multiple: of how many channels.
        otherwise: what happens where the width is no such multiple.
        source: where that is written.
    """

    name: str
    multiple: int
    otherwise: str
    source: str


NEEDS = (
    Need(
        "GGUF Q4_0/Q8_0",
        32,
        "the down projections stay unquantized, in float16",
        "https://github.com/ggml-org/llama.cpp/pull/3747",
    ),
    Need(
        "tensor-core tiles",
        64,
        "products run at a lower rate; 64 numbers of 16 bits are the 128 bytes that an A100 wants aligned",
        "https://docs.nvidia.com/deeplearning/performance/dl-performance-matrix-multiplication/index.html",
    ),
    Need(
        "GPTQ/AWQ groups",
        _GROUP,
        "vLLM's Marlin kernels refuse the quantized model; other groups or kernels may do",
        "https://github.com/vllm-project/vllm/issues/9913",
    ),
    Need(
        "GGUF K-quants",
        256,
        "llama.cpp stores the down projections in a larger type (Q4_K becomes Q5_0)",
        "https://github.com/ggml-org/llama.cpp/pull/3747",
    ),
)
SPLIT_SOURCE = "https://github.com/vllm-project/vllm/issues/21695"


@dataclass(frozen=True, slots=True)
class Readiness:
    """What the widths of a model's sites allow.

    Attributes:
        divisor: largest number that divides all of them.
        widest: the widest site's channels.
    """

    divisor: int
    widest: int

    @property
    def met(self) -> tuple[Need, ...]:
        """Needs that every site meets."""
        return tuple(need for need in NEEDS if self.divisor % need.multiple == 0)

    @property
    def unmet(self) -> tuple[Need, ...]:
        """Needs that a site does not meet."""
        return tuple(need for need in NEEDS if self.divisor % need.multiple)

    def next_width(self, need: Need) -> int:
        """The least width from the widest site's on that meets ``need``."""
        return round_up(self.widest, need.multiple)

    def splits(self, group: int = 1) -> tuple[int, ...]:
        """Of 2, 4, 8 and 16 GPUs, those that tensor parallelism can split whole groups of channels over.

        Attention heads and the vocabulary set limits of their own, which a cut of channels does not change.
        """
        return tuple(n for n in _SPLITS if self.divisor % (group * n) == 0)

    def as_json(self) -> dict[str, Any]:
        """Each need with whether it is met and the next width that would, and the GPUs that can share."""
        return {
            "needs": [
                {
                    "name": need.name,
                    "multiple": need.multiple,
                    "met": need in self.met,
                    "next_width": self.next_width(need),
                    "otherwise": need.otherwise,
                    "source": need.source,
                }
                for need in NEEDS
            ],
            "tensor_parallel": {
                "plain": list(self.splits()),
                f"groups_of_{_GROUP}": list(self.splits(_GROUP)),
                "source": SPLIT_SOURCE,
            },
        }


def readiness(widths: Iterable[int]) -> Readiness:
    """Of a model whose sites store ``widths`` channels.

    A matrix product's inner size and a quantized row are counted in channels where the down projection reads
    them; gate and up write as many, in multiples that these four imply.
    """
    stored = list(widths)
    return Readiness(math.gcd(*stored), max(stored))
