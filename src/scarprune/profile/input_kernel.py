"""The squares of a network's input, added up by one Triton kernel; only imported with Triton."""

import torch
import triton
import triton.language as tl

SHAPE = 256, 8, 4  # channels and tokens that a program has before it at once, and its warps
_STAGES = 3  # of reads on the way while others are added up


# One program for any number of tokens: each is compiled at its first use on a machine.
@triton.jit(do_not_specialize=["tokens"])  # type: ignore[untyped-decorator]
def _kernel(  # type: ignore[no-untyped-def]
    x,
    sums,
    tokens,
    channels,
    x_token,
    CHUNK: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STAGES: tl.constexpr,
):
    # x is [tokens, channels], sums float32 [chunks, channels].
    chunk = tl.program_id(1)
    first = chunk * CHUNK
    last = tl.minimum(first + CHUNK, tokens)
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < channels
    rows = tl.arange(0, ROWS)
    at = x + (first + rows).to(tl.int64)[:, None] * x_token + columns[None, :]
    total = tl.zeros([ROWS, COLUMNS], tl.float32)
    for token in tl.range(first, last, ROWS, num_stages=STAGES):
        here = (token + rows < last)[:, None] & inside[None, :]
        read = tl.load(at, mask=here, other=0.0).to(tl.float32)
        at += ROWS * x_token
        total += read * read
    tl.store(sums + chunk.to(tl.int64) * channels + columns, tl.sum(total, axis=0), mask=inside)


def launch(x: torch.Tensor, sums: torch.Tensor, chunk: int) -> None:
    """Write the squares of x [N, d], added up over ``chunk`` tokens each, to float32 ``sums`` [chunks, d]."""
    x = x if x.stride(1) == 1 else x.contiguous()
    tokens, channels = x.shape
    columns, rows, warps = SHAPE
    with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
        _kernel[triton.cdiv(channels, columns), len(sums)](
            x,
            sums,
            tokens,
            channels,
            x.stride(0),
            CHUNK=chunk,
            ROWS=rows,
            COLUMNS=columns,
            STAGES=_STAGES,
            num_warps=warps,
        )
