"""What pass 1 keeps of the sums over tokens as one Triton kernel; imported where Triton is there."""

import torch
import triton
import triton.language as tl

from scarprune.profile.sums import BANDED_LABELLED

_COLUMNS, _BLOCKS, _WARPS = 32, 16, 4  # channels and blocks that a program has before it at once


@triton.jit
def _of_blocks(sums, index, slots, row, at, inside):  # type: ignore[no-untyped-def]
    """A sum over all positions of each block, float64, shaped like ``at``: its places in a ``row``."""
    start = sums + index * row + at
    found = tl.load(start, mask=inside, other=0.0).to(tl.float64)
    for slot in range(1, slots):
        found += tl.load(start + slot * 10 * row, mask=inside, other=0.0).to(tl.float64)
    return found


@triton.jit  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    sums,
    membership,
    rows,
    slots,
    blocks,
    channels,
    LABELLED: tl.constexpr,
    BLOCKS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    # sums is float32 [slots, 10, blocks, channels], membership float64 [8, blocks], rows float64 [51, .].
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    there = columns < channels
    to = rows + columns
    member = tl.arange(0, BLOCKS)
    row = tl.program_id(0).to(tl.int64) * 0 + blocks * channels  # what follows is counted in 64 bits

    for index in range(0, 9):  # the last sum, of abs(u), has no bands
        first = tl.zeros([COLUMNS], tl.float64)
        second = tl.zeros([COLUMNS], tl.float64)
        third = tl.zeros([COLUMNS], tl.float64)
        for start in range(0, blocks, BLOCKS):
            block = start + member
            inside = (block < blocks)[:, None] & there[None, :]
            at = sums + index * row + block.to(tl.int64)[:, None] * channels + columns[None, :]
            first += tl.sum(tl.load(at, mask=inside, other=0.0).to(tl.float64), axis=0)
            second += tl.sum(tl.load(at + 10 * row, mask=inside, other=0.0).to(tl.float64), axis=0)
            for slot in range(2, slots):
                part = tl.load(at + slot * 10 * row, mask=inside, other=0.0)
                third += tl.sum(part.to(tl.float64), axis=0)
        # Twenty rows lie between those that depend on labels and those of u.
        place = 3 * index + tl.where(index < LABELLED, 0, 20)
        tl.store(to + place * channels, first, mask=there)
        tl.store(to + (place + 1) * channels, second, mask=there)
        tl.store(to + (place + 2) * channels, third, mask=there)

    g2 = tl.zeros([COLUMNS], tl.float64)
    gs = tl.zeros([COLUMNS], tl.float64)
    s2 = tl.zeros([COLUMNS], tl.float64)
    q2_squared = tl.zeros([COLUMNS], tl.float64)
    groups_q2 = tl.zeros([8, COLUMNS], tl.float64)
    groups_g = tl.zeros([8, COLUMNS], tl.float64)
    groups_u2 = tl.zeros([4, COLUMNS], tl.float64)
    group, half = tl.arange(0, 8), tl.arange(0, 4)
    for start in range(0, blocks, BLOCKS):
        block = start + member
        counts = block < blocks
        inside = counts[:, None] & there[None, :]
        at = block.to(tl.int64)[:, None] * channels + columns[None, :]
        s = _of_blocks(sums, 0, slots, row, at, inside)
        g = _of_blocks(sums, 2, slots, row, at, inside)
        q2 = _of_blocks(sums, 4, slots, row, at, inside)
        u2 = _of_blocks(sums, 8, slots, row, at, inside)
        g2 += tl.sum(g * g, axis=0)
        gs += tl.sum(g * s, axis=0)
        s2 += tl.sum(s * s, axis=0)
        q2_squared += tl.sum(q2 * q2, axis=0)
        of = membership + group[:, None] * blocks + block[None, :]
        weight = tl.load(of, mask=counts[None, :], other=0.0)[:, :, None]
        groups_q2 += tl.sum(weight * q2[None, :, :], axis=1)
        groups_g += tl.sum(weight * g[None, :, :], axis=1)
        of = membership + 2 * half[:, None] * blocks + block[None, :]
        weight = tl.load(of, mask=counts[None, :], other=0.0)
        weight += tl.load(of + blocks, mask=counts[None, :], other=0.0)
        groups_u2 += tl.sum(weight[:, :, None] * u2[None, :, :], axis=1)
    to += 3 * LABELLED * channels
    tl.store(to, g2, mask=there)
    tl.store(to + channels, gs, mask=there)
    tl.store(to + 2 * channels, s2, mask=there)
    tl.store(to + 3 * channels, q2_squared, mask=there)
    to += 4 * channels
    many = to[None, :] + group[:, None] * channels
    tl.store(many, groups_q2, mask=there[None, :])
    tl.store(many + 8 * channels, groups_g, mask=there[None, :])
    many = to[None, :] + (22 + half)[:, None] * channels
    tl.store(many, groups_u2, mask=there[None, :])


def launch(sums: torch.Tensor, membership: torch.Tensor, rows: torch.Tensor) -> None:
    """Write the rows of ``site_sums`` but those of statistics to ``rows``, float64 [51, m].

    Args:
        sums: float32 [slots, 10, B, m] of ``token_kernel``.
        membership: float64 [8, B].
    """
    slots, _, blocks, channels = sums.shape
    with torch.cuda.device_of(sums):  # type: ignore[no-untyped-call]
        _kernel[(triton.cdiv(channels, _COLUMNS),)](
            sums,
            membership,
            rows,
            slots,
            blocks,
            channels,
            LABELLED=len(BANDED_LABELLED),
            BLOCKS=_BLOCKS,
            COLUMNS=_COLUMNS,
            num_warps=_WARPS,
        )
