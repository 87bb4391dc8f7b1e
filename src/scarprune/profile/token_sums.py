"""Sums over tokens of one pair u, s: plain operations, and one kernel for them where Triton is there."""

import torch

from scarprune.profile.operation import operation
from scarprune.profile.sums import BANDED, BANDED_LABELLED, BANDS

# What is summed: first what depends on the labels, then what u alone gives.
SUMS = (*BANDED_LABELLED, *BANDED, "sum_abs_u")
_CACHED_ELEMENTS = 1 << 15
# Tokens that one program of the kernel adds up in float32: enough programs for all of a GPU from 8192 tokens
# on, and sums that are a small part of what is read.
_CHUNK = 256


def wide(x: torch.Tensor) -> torch.Tensor:
    """``x`` in float32, or as it is where it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def plain(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """All sums over tokens that one pair u, s [B, T, m] gives, band by band: [3, SUMS, B, m].

    float32, or float64 where u and s are.
    """
    on_cpu = u.device.type == "cpu" and not torch.compiler.is_compiling()
    reduce = _by_block if on_cpu else _reduce
    return torch.stack([reduce(u[:, lo:hi], s[:, lo:hi]) for lo, hi in BANDS])


def _reduce(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """[SUMS, B, m]. One read of u and s where a compiler fuses it: 20 operations and two loads an element."""
    u, s = wide(u), wide(s)
    q = u * s
    q2 = q * q
    rows = [s.sum(1), (s * s).sum(1), q.sum(1), q.abs().sum(1), q2.sum(1), (q2 * q2).sum(1), (q * s).sum(1)]
    rows += [u.sum(1), (u * u).sum(1), u.abs().sum(1)]
    return torch.stack(rows)


def _by_block(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """``_reduce`` one block at a time, so that a CPU's temporaries stay in its cache."""
    if u[0].numel() < _CACHED_ELEMENTS:
        return _reduce(u, s)
    return torch.cat([_reduce(u[b : b + 1], s[b : b + 1]) for b in range(len(u))], dim=1)


def blank_sums(u: torch.Tensor) -> torch.Tensor:
    """Room for what ``fused`` gives of u [B, T, m]: float32 [2 + chunks, SUMS, B, m]."""
    blocks, tokens, channels = u.shape
    chunks = max(1, -(-(tokens - BANDS[2][0]) // _CHUNK))
    return u.new_empty((2 + chunks, len(SUMS), blocks, channels), dtype=torch.float32)


def _blank(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    return blank_sums(u)


def _blank_with_gate(
    gate: torch.Tensor, up: torch.Tensor, s: torch.Tensor, activation: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return gate.new_empty(gate.shape), gate.new_empty(gate.shape), blank_sums(gate)


@operation("sums", _blank)
def fused(u: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
    """``plain`` in one read of u and s, the third band in chunks: float32 [2 + chunks, SUMS, B, m]."""
    from scarprune.profile.token_kernel import launch

    sums = blank_sums(u)
    launch(u, s, sums, _CHUNK)
    return sums


@operation("gate", _blank_with_gate)
def fused_with_gate(
    gate: torch.Tensor, up: torch.Tensor, s: torch.Tensor, activation: str
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of gate and up [B, T, m], where s is that of activation(gate) * up, and its ``fused``."""
    from scarprune.profile.token_kernel import launch_gate

    sums = blank_sums(gate)
    return *launch_gate(gate, up, s, sums, activation, _CHUNK), sums
