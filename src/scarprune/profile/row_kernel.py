"""What pass 1 keeps of the sums over tokens as one Triton kernel; imported where Triton is there."""

import torch
import triton
import triton.language as tl

from scarprune.profile.sums import BANDED_LABELLED
from scarprune.profile.token_sums import SUMS

SHAPE = 128, 4, 2  # channels and blocks that a program has before it at once, and its warps


@triton.jit
def _part(sums, index, slot, row, at, inside):  # type: ignore[no-untyped-def]
    """Sum ``index`` of one slot, float64, shaped like ``at``: places in a ``row`` of blocks and channels."""
    return tl.load(sums + (slot * 10 + index) * row + at, mask=inside, other=0.0).to(tl.float64)


@triton.jit
def _later(sums, index, slots, row, at, inside):  # type: ignore[no-untyped-def]
    """The same over all slots of the third band."""
    found = _part(sums, index, 2, row, at, inside)
    for slot in range(3, slots):
        found += _part(sums, index, slot, row, at, inside)
    return found


# One program for any batch: each is compiled at its first use on a machine.
@triton.jit(do_not_specialize=["slots", "blocks"])  # type: ignore[untyped-decorator]
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
    # sums is float32 [slots, 10, blocks, channels], membership float64 [8, blocks], rows float64 [51, .]. A
    # program makes all rows of one sum; S, G, q^2 and u^2 are sums 0, 2, 4 and 8.
    index = tl.program_id(1)
    row = tl.program_id(0).to(tl.int64) * 0 + blocks * channels  # what follows is counted in 64 bits
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    there = columns < channels
    group = tl.arange(0, 8)
    first = tl.zeros([COLUMNS], tl.float64)
    second = tl.zeros([COLUMNS], tl.float64)
    third = tl.zeros([COLUMNS], tl.float64)
    squares = tl.zeros([COLUMNS], tl.float64)
    crossed = tl.zeros([COLUMNS], tl.float64)
    groups = tl.zeros([8, COLUMNS], tl.float64)
    for start in range(0, blocks, BLOCKS):
        block = start + tl.arange(0, BLOCKS)
        inside = (block < blocks)[:, None] & there[None, :]
        at = block.to(tl.int64)[:, None] * channels + columns[None, :]
        zeroth = _part(sums, index, 0, row, at, inside)
        few = _part(sums, index, 1, row, at, inside)
        later = _later(sums, index, slots, row, at, inside)
        first += tl.sum(zeroth, axis=0)
        second += tl.sum(few, axis=0)
        third += tl.sum(later, axis=0)
        of_block = zeroth + few + later
        squares += tl.sum(of_block * of_block, axis=0)
        if index == 2:
            s = _part(sums, 0, 0, row, at, inside) + _part(sums, 0, 1, row, at, inside)
            s += _later(sums, 0, slots, row, at, inside)
            crossed += tl.sum(of_block * s, axis=0)
        if (index == 2) | (index == 4) | (index == 8):
            member = membership + group[:, None] * blocks + block[None, :]
            weight = tl.load(member, mask=(block < blocks)[None, :], other=0.0)
            groups += tl.sum(weight[:, :, None] * of_block[None, :, :], axis=1)

    to = rows + columns
    after = to + 3 * LABELLED * channels  # the rows by block and by group, then the bands of u
    bands = to + (3 * index + tl.where(index < LABELLED, 0, 20)) * channels
    tl.store(bands, first, mask=there)
    tl.store(bands + channels, second, mask=there)
    tl.store(bands + 2 * channels, third, mask=there)
    if index == 2:
        tl.store(after, squares, mask=there)
        tl.store(after + channels, crossed, mask=there)
        tl.store(after[None, :] + (12 + group)[:, None] * channels, groups, mask=there[None, :])
    if index == 0:
        tl.store(after + 2 * channels, squares, mask=there)
    if index == 4:
        tl.store(after + 3 * channels, squares, mask=there)
        tl.store(after[None, :] + (4 + group)[:, None] * channels, groups, mask=there[None, :])
    if index == 8:
        halves = tl.sum(tl.reshape(groups, [4, 2, COLUMNS]), axis=1)
        many = after[None, :] + (26 + tl.arange(0, 4))[:, None] * channels
        tl.store(many, halves, mask=there[None, :])


def launch(sums: torch.Tensor, membership: torch.Tensor, rows: torch.Tensor) -> None:
    """Write the rows of ``site_sums`` but those of statistics to ``rows``, float64 [51, m].

    Args:
        sums: float32 [slots, 10, B, m] of ``token_kernel``.
        membership: float64 [8, B].
    """
    slots, _, blocks, channels = sums.shape
    at_once, blocks_at_once, warps = SHAPE
    with torch.cuda.device_of(sums):  # type: ignore[no-untyped-call]
        _kernel[triton.cdiv(channels, at_once), len(SUMS) - 1](
            sums,
            membership,
            rows,
            slots,
            blocks,
            channels,
            LABELLED=len(BANDED_LABELLED),
            BLOCKS=blocks_at_once,
            COLUMNS=at_once,
            num_warps=warps,
        )
