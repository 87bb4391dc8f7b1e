"""Sum of squares over tokens of a network's input: plain operations, and one kernel where Triton is there."""

import math

import torch

from scarprune.profile.operation import operation
from scarprune.profile.token_sums import wide

_CHUNK = 128  # tokens that one program of the kernel adds up


def input_sums(x: torch.Tensor, kernel_on: str = "") -> torch.Tensor:
    """Sum of squares over tokens of ``x`` [..., d]: float32 [d], or float64 where x is.

    Args:
        kernel_on: the type of device on which a kernel sums; elsewhere plain operations do.
    """
    x = x.flatten(0, -2)
    return (squares(x) if x.device.type == kernel_on else wide(x).square()).sum(0)


def _blank(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty((math.ceil(len(x) / _CHUNK), x.shape[1]), dtype=torch.float32)


# A compiler's own reduction makes x anew from what the norm before it read, twice as much.
@operation("squares", _blank)
def squares(x: torch.Tensor) -> torch.Tensor:
    """The squares of ``x`` [N, d] added up in chunks of tokens, in one read: float32 [chunks, d]."""
    from scarprune.profile.input_kernel import launch

    sums = _blank(x)
    launch(x, sums, _CHUNK)
    return sums
