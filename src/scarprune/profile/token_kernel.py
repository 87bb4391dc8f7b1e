"""The sums over tokens as one Triton kernel, alone or with a gate's gradients; only imported with Triton."""

import torch
import triton
import triton.language as tl

from scarprune.profile.sums import BANDS

# Channels, tokens and warps of a program, alone and with a gate's gradients: the fastest of those tried on an
# H200 at 8192 tokens of 14,336 channels in bfloat16 (docs/decisions/0026). A thread adds up eight numbers of
# its own, and they meet when the program ends.
SHAPE, GATE_SHAPE = (128, 2, 1), (512, 1, 2)
_STAGES = 3  # of reads on the way while others are added up
_ELEMENTS = 1024  # of a program that computes u


@triton.jit  # type: ignore[untyped-decorator]
def _activation(g, NAME: tl.constexpr):  # type: ignore[no-untyped-def]
    """The activation of g and its slope there, in float32; it is a name of ``gate.ACTIVATIONS``."""
    if NAME == "silu":
        rising = tl.sigmoid(g)
        a = g * rising
        slope = rising * (1.0 + g * (1.0 - rising))
    elif NAME == "gelu":
        below = 0.5 * (1.0 + tl.erf(0.7071067811865476 * g))
        a = g * below
        slope = below + g * 0.3989422804014327 * tl.exp(-0.5 * g * g)
    else:  # gelu_tanh
        inner = 0.7978845608028654 * g * (1.0 + 0.044715 * g * g)
        t = 2.0 * tl.sigmoid(2.0 * inner) - 1.0
        a = 0.5 * g * (1.0 + t)
        slope = 0.5 * (1.0 + t)
        slope += 0.5 * g * (1.0 - t * t) * 0.7978845608028654 * (1.0 + 3.0 * 0.044715 * g * g)
    return a, slope


@triton.jit  # type: ignore[untyped-decorator]
def _product_kernel(gate, up, u, size, ACTIVATION: tl.constexpr, ELEMENTS: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0).to(tl.int64) * ELEMENTS + tl.arange(0, ELEMENTS)
    inside = at < size
    g = tl.load(gate + at, mask=inside, other=0.0)
    a, _ = _activation(g.to(tl.float32), ACTIVATION)
    # Rounded where a model's own operations round.
    v = tl.load(up + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(u + at, a.to(g.dtype).to(tl.float32) * v, mask=inside)


# One program for any number of tokens: each is compiled at its first use on a machine.
@triton.jit(do_not_specialize=["tokens"])  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    u,
    s,
    sums,
    up,
    to_gate,
    to_up,
    tokens,
    channels,
    u_block,
    u_token,
    s_block,
    s_token,
    ACTIVATION: tl.constexpr,
    SECOND: tl.constexpr,
    THIRD: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STAGES: tl.constexpr,
):
    # Slot 0 is the first band of positions, slot 1 the second, every other one a chunk of the third. With an
    # ACTIVATION, u is the gate's output, up and the two gradients lie as it does, and u itself is made here.
    slot, block = tl.program_id(1), tl.program_id(2).to(tl.int64)
    chunk = THIRD + (slot - 2) * CHUNK
    first = tl.where(slot == 0, 0, tl.where(slot == 1, SECOND, chunk))
    last = tl.where(slot == 0, SECOND, tl.where(slot == 1, THIRD, chunk + CHUNK))
    last = tl.minimum(last, tokens)
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    rows = tl.arange(0, ROWS)
    at = (first + rows).to(tl.int64)[:, None]
    offset = block * u_block + at * u_token + columns[None, :]
    s_at = s + block * s_block + at * s_token + columns[None, :]

    sum_s = tl.zeros([ROWS, COLUMNS], tl.float32)
    sum_s2 = tl.zeros([ROWS, COLUMNS], tl.float32)
    sum_q = tl.zeros([ROWS, COLUMNS], tl.float32)
    sum_abs_q = tl.zeros([ROWS, COLUMNS], tl.float32)
    sum_q2 = tl.zeros([ROWS, COLUMNS], tl.float32)
    sum_q4 = tl.zeros([ROWS, COLUMNS], tl.float32)
    sum_us2 = tl.zeros([ROWS, COLUMNS], tl.float32)
    sum_u = tl.zeros([ROWS, COLUMNS], tl.float32)
    sum_u2 = tl.zeros([ROWS, COLUMNS], tl.float32)
    sum_abs_u = tl.zeros([ROWS, COLUMNS], tl.float32)
    for token in tl.range(first, last, ROWS, num_stages=STAGES):
        here = (token + rows < last)[:, None] & inside[None, :]
        first_read = tl.load(u + offset, mask=here, other=0.0)
        x = first_read.to(tl.float32)
        y = tl.load(s_at, mask=here, other=0.0).to(tl.float32)
        s_at += ROWS * s_token
        if ACTIVATION != "":
            # Rounded where a model's own operations round.
            v = tl.load(up + offset, mask=here, other=0.0).to(tl.float32)
            a, slope = _activation(x, ACTIVATION)
            a = a.to(first_read.dtype).to(tl.float32)
            tl.store(to_up + offset, y * a, mask=here)
            tl.store(to_gate + offset, (y * v).to(first_read.dtype).to(tl.float32) * slope, mask=here)
            x = (a * v).to(first_read.dtype).to(tl.float32)
        offset += ROWS * u_token
        q = x * y
        q2 = q * q
        sum_s += y
        sum_s2 += y * y
        sum_q += q
        sum_abs_q += tl.abs(q)
        sum_q2 += q2
        sum_q4 += q2 * q2
        sum_us2 += q * y
        sum_u += x
        sum_u2 += x * x
        sum_abs_u += tl.abs(x)

    # sums is [slots, 10, blocks, channels].
    row = tl.num_programs(2).to(tl.int64) * channels
    to = sums + slot.to(tl.int64) * 10 * row + block * channels + columns
    tl.store(to, tl.sum(sum_s, axis=0), mask=inside)
    tl.store(to + row, tl.sum(sum_s2, axis=0), mask=inside)
    tl.store(to + 2 * row, tl.sum(sum_q, axis=0), mask=inside)
    tl.store(to + 3 * row, tl.sum(sum_abs_q, axis=0), mask=inside)
    tl.store(to + 4 * row, tl.sum(sum_q2, axis=0), mask=inside)
    tl.store(to + 5 * row, tl.sum(sum_q4, axis=0), mask=inside)
    tl.store(to + 6 * row, tl.sum(sum_us2, axis=0), mask=inside)
    tl.store(to + 7 * row, tl.sum(sum_u, axis=0), mask=inside)
    tl.store(to + 8 * row, tl.sum(sum_u2, axis=0), mask=inside)
    tl.store(to + 9 * row, tl.sum(sum_abs_u, axis=0), mask=inside)


def launch(u: torch.Tensor, s: torch.Tensor, sums: torch.Tensor, chunk: int) -> None:
    """Write all sums over tokens of u, s [B, T, m] to ``sums``, float32 [slots, 10, B, m]."""
    # Channels must lie side by side, as they do in all a model gives; tokens and blocks may lie anywhere.
    u, s = (x if x.stride(2) == 1 else x.contiguous() for x in (u, s))
    _launch(u, s, sums, (u, u, u), "", chunk, SHAPE)


def launch_gate(
    gate: torch.Tensor, up: torch.Tensor, s: torch.Tensor, sums: torch.Tensor, activation: str, chunk: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradients of gate and up [B, T, m], where s is that of u = activation(gate) * up.

    All sums over tokens of u and s are written to ``sums``, as ``launch`` does.
    """
    gate, up, s = gate.contiguous(), up.contiguous(), s.contiguous()
    to_gate, to_up = torch.empty_like(gate), torch.empty_like(up)
    _launch(gate, s, sums, (up, to_gate, to_up), activation, chunk, GATE_SHAPE)
    return to_gate, to_up


def _launch(
    u: torch.Tensor,
    s: torch.Tensor,
    sums: torch.Tensor,
    beside: tuple[torch.Tensor, ...],
    activation: str,
    chunk: int,
    shape: tuple[int, int, int],
) -> None:
    blocks, tokens, channels = u.shape
    columns, rows, warps = shape
    with torch.cuda.device_of(u):  # type: ignore[no-untyped-call]
        _kernel[triton.cdiv(channels, columns), len(sums), blocks](
            u,
            s,
            sums,
            *beside,
            tokens,
            channels,
            *u.stride()[:2],
            *s.stride()[:2],
            ACTIVATION=activation,
            SECOND=BANDS[1][0],
            THIRD=BANDS[2][0],
            CHUNK=chunk,
            ROWS=rows,
            COLUMNS=columns,
            STAGES=_STAGES,
            num_warps=warps,
        )


def product(gate: torch.Tensor, up: torch.Tensor, activation: str) -> torch.Tensor:
    """u = activation(gate) * up, rounded where a model's own two operations round."""
    gate, up = gate.contiguous(), up.contiguous()
    u = torch.empty_like(gate)
    with torch.cuda.device_of(u):  # type: ignore[no-untyped-call]
        _product_kernel[(triton.cdiv(u.numel(), _ELEMENTS),)](
            gate, up, u, u.numel(), ACTIVATION=activation, ELEMENTS=_ELEMENTS
        )
    return u
