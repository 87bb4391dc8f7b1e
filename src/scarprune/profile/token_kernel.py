"""The sums over tokens as one Triton kernel; only ``token_sums`` imports it, where Triton is there."""

import torch
import triton
import triton.language as tl

from scarprune.profile.sums import BANDS

# A warp walks down 256 channels, 2 tokens at a time. In bfloat16 each thread holds 8 channels, 16 bytes of a
# token, so tokens are added up inside a thread, and 128 registers leave room for 16 warps on each of the
# 132 processors of an H100: 8192 tokens of 14,336 channels run at once, with 28 KB on the way to each.
COLUMNS, ROWS, WARPS = 256, 2, 1


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    u,
    s,
    sums,
    tokens,
    channels,
    u_block,
    u_token,
    s_block,
    s_token,
    SECOND: tl.constexpr,
    THIRD: tl.constexpr,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # Slot 0 is the first band of positions, slot 1 the second, every other one a chunk of the third.
    slot, block = tl.program_id(1), tl.program_id(2).to(tl.int64)
    chunk = THIRD + (slot - 2) * CHUNK
    first = tl.where(slot == 0, 0, tl.where(slot == 1, SECOND, chunk))
    last = tl.where(slot == 0, SECOND, tl.where(slot == 1, THIRD, chunk + CHUNK))
    last = tl.minimum(last, tokens)
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    rows = tl.arange(0, ROWS)
    at = (first + rows).to(tl.int64)[:, None]
    u_at = u + block * u_block + at * u_token + columns[None, :]
    s_at = s + block * s_block + at * s_token + columns[None, :]

    sum_s = tl.zeros([COLUMNS], tl.float32)
    sum_s2 = tl.zeros([COLUMNS], tl.float32)
    sum_q = tl.zeros([COLUMNS], tl.float32)
    sum_abs_q = tl.zeros([COLUMNS], tl.float32)
    sum_q2 = tl.zeros([COLUMNS], tl.float32)
    sum_q4 = tl.zeros([COLUMNS], tl.float32)
    sum_us2 = tl.zeros([COLUMNS], tl.float32)
    sum_u = tl.zeros([COLUMNS], tl.float32)
    sum_u2 = tl.zeros([COLUMNS], tl.float32)
    sum_abs_u = tl.zeros([COLUMNS], tl.float32)
    for token in range(first, last, ROWS):
        here = (token + rows < last)[:, None] & inside[None, :]
        x = tl.load(u_at, mask=here, other=0.0).to(tl.float32)
        y = tl.load(s_at, mask=here, other=0.0).to(tl.float32)
        u_at += ROWS * u_token
        s_at += ROWS * s_token
        q = x * y
        q2 = q * q
        sum_s += tl.sum(y, axis=0)
        sum_s2 += tl.sum(y * y, axis=0)
        sum_q += tl.sum(q, axis=0)
        sum_abs_q += tl.sum(tl.abs(q), axis=0)
        sum_q2 += tl.sum(q2, axis=0)
        sum_q4 += tl.sum(q2 * q2, axis=0)
        sum_us2 += tl.sum(q * y, axis=0)
        sum_u += tl.sum(x, axis=0)
        sum_u2 += tl.sum(x * x, axis=0)
        sum_abs_u += tl.sum(tl.abs(x), axis=0)

    # sums is [slots, 10, blocks, channels].
    row = tl.num_programs(2).to(tl.int64) * channels
    to = sums + slot.to(tl.int64) * 10 * row + block * channels + columns
    tl.store(to, sum_s, mask=inside)
    tl.store(to + row, sum_s2, mask=inside)
    tl.store(to + 2 * row, sum_q, mask=inside)
    tl.store(to + 3 * row, sum_abs_q, mask=inside)
    tl.store(to + 4 * row, sum_q2, mask=inside)
    tl.store(to + 5 * row, sum_q4, mask=inside)
    tl.store(to + 6 * row, sum_us2, mask=inside)
    tl.store(to + 7 * row, sum_u, mask=inside)
    tl.store(to + 8 * row, sum_u2, mask=inside)
    tl.store(to + 9 * row, sum_abs_u, mask=inside)


def launch(u: torch.Tensor, s: torch.Tensor, sums: torch.Tensor, chunk: int) -> None:
    """Write all sums over tokens of u, s [B, T, m] to ``sums``, float32 [slots, 10, B, m]."""
    # Channels must lie side by side, as they do in all a model gives; tokens and blocks may lie anywhere.
    u, s = (x if x.stride(2) == 1 else x.contiguous() for x in (u, s))
    blocks, tokens, channels = u.shape
    with torch.cuda.device_of(u):  # type: ignore[no-untyped-call]
        _kernel[triton.cdiv(channels, COLUMNS), len(sums), blocks](
            u,
            s,
            sums,
            tokens,
            channels,
            *u.stride()[:2],
            *s.stride()[:2],
            SECOND=BANDS[1][0],
            THIRD=BANDS[2][0],
            CHUNK=chunk,
            ROWS=ROWS,
            COLUMNS=COLUMNS,
            num_warps=WARPS,
        )
