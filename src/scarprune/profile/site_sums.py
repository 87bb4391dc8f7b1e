"""What pass 1 keeps of one site and batch: rows of sums over blocks, from sums over tokens (``method`` 1)."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch

from scarprune.errors import first_line
from scarprune.profile.input_sums import squares
from scarprune.profile.operation import operation
from scarprune.profile.statistics.statistic import Statistic
from scarprune.profile.sums import (
    ACTIVATION_GROUPS,
    BANDED,
    BANDED_LABELLED,
    BANDS,
    BLOCK_LABELLED,
    GROUP,
    GROUP_LABELLED,
    GROUPS,
)
from scarprune.profile.token_sums import SUMS, fused, fused_with_gate, plain
from scarprune.runtime.memory import is_out_of_memory
from scarprune.runtime.progress import remark

_S, _Q, _Q2, _U2, _ABS_U = map(SUMS.index, ("sum_s", "sum_q", "sum_q2", "sum_u2", "sum_abs_u"))

# Names, and how many rows each takes.
LABELLED_ROWS = (
    *((name, len(BANDS)) for name in BANDED_LABELLED),
    *((name, 1) for name in BLOCK_LABELLED),
    *((name, GROUPS) for name in GROUP_LABELLED),
)


def shared_rows(statistics: Sequence[Statistic]) -> tuple[tuple[str, int], ...]:
    """The same of what u alone gives."""
    return (
        *((name, len(BANDS)) for name in BANDED),
        *((name, ACTIVATION_GROUPS) for name in GROUP),
        *((item.name, 1) for item in statistics),
    )


def site_sums(
    u: torch.Tensor,
    s: torch.Tensor,
    membership: torch.Tensor,
    statistics: Sequence[Statistic],
    kernel_on: str = "",
) -> torch.Tensor:
    """What pass 1 keeps of one site's u and s, [B, T, m] or flattened to [B T, m].

    Args:
        membership: [8, B], 1 where a block belongs to a group; its dtype (float64; float32 where a
            device has no other) is that of the sums over blocks.
        kernel_on: the type of device on which kernels sum; elsewhere plain operations do.

    Returns:
        [rows, m], first the ``LABELLED_ROWS``, then ``shared_rows``.
    """
    u, s = (_by_block(x, membership) for x in (u, s))
    by_kernel = u.device.type == kernel_on
    parts = fused(u, s) if by_kernel else plain(u, s)
    return _rows(parts, membership, statistics, u.shape[1], by_kernel)


def gated_sums(
    gate: torch.Tensor,
    up: torch.Tensor,
    s: torch.Tensor,
    membership: torch.Tensor,
    activation: str,
    statistics: Sequence[Statistic],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of gate and up where u is ``activation`` (gate) * up, and ``site_sums`` of u and s."""
    shape = gate.shape
    gate, up, s = (_by_block(x, membership) for x in (gate, up, s))
    to_gate, to_up, parts = fused_with_gate(gate, up, s, activation)
    rows = _rows(parts, membership, statistics, gate.shape[1], by_kernel=True)
    return to_gate.view(shape), to_up.view(shape), rows


def _by_block(x: torch.Tensor, membership: torch.Tensor) -> torch.Tensor:
    return x.reshape(membership.shape[1], -1, x.shape[-1])


def _rows(
    parts: torch.Tensor,
    membership: torch.Tensor,
    statistics: Sequence[Statistic],
    tokens: int,
    by_kernel: bool,
) -> torch.Tensor:
    """From sums over tokens [parts, SUMS, B, m], the first two parts of bands of their own."""
    rows = kernel_rows(parts, membership) if by_kernel else _plain_rows(parts, membership)
    abs_u, u2 = parts[:, _ABS_U].sum(0, dtype=membership.dtype), parts[:, _U2].sum(0, dtype=membership.dtype)
    return torch.cat([rows, *(item.of_blocks(tokens, abs_u, u2)[None] for item in statistics)])


def _plain_rows(parts: torch.Tensor, membership: torch.Tensor) -> torch.Tensor:
    exact, labelled = membership.dtype, len(BANDED_LABELLED)
    bands = [parts[0].sum(1, dtype=exact), parts[1].sum(1, dtype=exact), parts[2:].sum((0, 2), dtype=exact)]
    banded, blocks = torch.stack(bands, 1), parts.sum(0, dtype=exact)  # [SUMS, 3, m] and [SUMS, B, m]
    big_s, g, q2 = blocks[_S], blocks[_Q], blocks[_Q2]
    halves = membership.view(ACTIVATION_GROUPS, -1, membership.shape[1]).sum(1)
    return torch.cat(
        [
            banded[:labelled].flatten(0, 1),
            (torch.stack([g, g, big_s, q2]) * torch.stack([g, big_s, big_s, q2])).sum(1),
            membership @ q2,
            membership @ g,
            banded[labelled:-1].flatten(0, 1),
            halves @ blocks[_U2],
        ]
    )


def _blank_rows(parts: torch.Tensor, membership: torch.Tensor) -> torch.Tensor:
    count = sum(count for _, count in (*LABELLED_ROWS, *shared_rows(())))
    return parts.new_empty((count, parts.shape[-1]), dtype=torch.float64)


@operation("rows", _blank_rows)
def kernel_rows(parts: torch.Tensor, membership: torch.Tensor) -> torch.Tensor:
    """The same by one kernel: float64 [rows, m]."""
    from scarprune.profile.row_kernel import launch

    rows = _blank_rows(parts, membership)
    launch(parts, membership, rows)
    return rows


@functools.cache
def has_kernel(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether kernels sum u and s of ``dtype`` on ``device``; where they should and do not, it says why."""
    if device.type != "cuda" or dtype == torch.float64:
        return False

    def sums(few: torch.Tensor) -> None:
        kernel_rows(fused(few, few), few.new_zeros((GROUPS, 1), dtype=torch.float64))
        squares(few[0])

    return works(sums, dtype, device)


def works(kernels: Callable[[torch.Tensor], Any], dtype: torch.dtype, device: torch.device) -> bool:
    """Whether ``kernels`` run on a few zeros [1, T, m]; where not, it is said why sums take longer."""
    try:
        kernels(torch.zeros(1, 16, 64, dtype=dtype, device=device))
    except Exception as error:
        if is_out_of_memory(error):
            raise
        remark(f"The kernel for sums cannot be used, so they take longer: {first_line(error)}")
        return False
    return True
