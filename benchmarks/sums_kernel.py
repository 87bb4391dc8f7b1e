"""The sums of pass 1 at one site: time and bytes per second of the kernel, of compiled and of plain code.

    python benchmarks/sums_kernel.py [--out FOLDER] [--tune]

u and s of one site of Llama-3.1-8B, random bfloat16, at 16 x 512 and 4 x 2048 tokens. "read" is what u and s
take from memory at the rate at which the device adds up a tensor of their size; the sums over tokens alone
("tokens"), and all that pass 1 keeps of a site ("site"). "gate" is the backward pass of a gate: its gradients
alone as a compiler makes them, and by the kernel with the sums beside them. "input" is the sum of squares of
what the network reads, 4,096 channels. --tune times other shapes of the kernels' programs.
"""

import argparse
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from record import RECORDS, write_record
from scarprune.profile import input_kernel, input_sums, token_kernel, token_sums
from scarprune.profile.site_sums import gated_sums, kernel_rows, site_sums
from scarprune.profile.statistics.statistic import statistics as declared

SHAPES = ((16, 512), (4, 2048))
CHANNELS, HIDDEN = 14336, 4096
TUNED = [(columns, rows, warps) for warps, columns in ((1, 256), (1, 512), (4, 512)) for rows in (1, 2, 4, 8)]
TUNED_GATE = [
    (columns, rows, warps)
    for warps, columns in ((1, 64), (1, 128), (1, 256), (2, 128), (2, 256), (4, 256), (4, 512))
    for rows in (1, 2, 4)
]
TUNED_INPUT = [
    (columns, rows, warps, chunk)
    for columns, rows, warps in (
        (128, 8, 2),
        (256, 4, 2),
        (256, 8, 4),
        (256, 16, 4),
        (512, 4, 4),
        (512, 8, 8),
    )
    for chunk in (64, 128, 256)
]


def milliseconds(function: Callable[..., Any], *args: torch.Tensor) -> float:
    """A call's share of 12 one after another, so that the GPU never waits for one; the best of 3.

    What they read is several times what the cache holds.
    """
    function(*args)
    times = []
    for _ in range(3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(12):
            function(*args)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 12)
    return min(times)


def gate_gradients(
    gate: torch.Tensor, up: torch.Tensor, s: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of silu(gate) * up, in plain operations."""
    rising = torch.sigmoid(gate.float())
    wide = s.float()
    slope = rising * (1 + gate.float() * (1 - rising))
    return (wide * up.float() * slope).to(gate.dtype), (wide * gate.float() * rising).to(gate.dtype)


def rows(u: torch.Tensor, s: torch.Tensor) -> list[dict[str, Any]]:
    """Every way at one shape, with its largest error relative to the largest of each sum in float64."""
    blocks, up = u.shape[0], u.flip(0)
    groups = (torch.arange(8)[:, None] == torch.arange(blocks) % 8).double().cuda()
    plain_site = functools.partial(site_sums, statistics=declared())
    kernel_site = functools.partial(plain_site, kernel_on="cuda")
    exact = site_sums(u.double(), s.double(), groups, declared())
    ways: dict[str, tuple[Callable[..., torch.Tensor], tuple[torch.Tensor, ...]]] = {
        "tokens, kernel": (token_sums.fused, (u, s)),
        "tokens, compiled": (torch.compile(token_sums.plain, dynamic=False), (u, s)),
        "tokens, plain": (token_sums.plain, (u, s)),
        "site, kernel, the rest eager": (kernel_site, (u, s, groups)),
        "site, compiled": (torch.compile(plain_site, dynamic=False), (u, s, groups)),
        "site, plain": (plain_site, (u, s, groups)),
        "site, the kernel of what follows": (kernel_rows, (token_sums.fused(u, s), groups)),
        "gate, compiled, no sums": (torch.compile(gate_gradients, dynamic=False), (u, up, s)),
        "gate, kernel, with sums over tokens": (
            functools.partial(token_sums.fused_with_gate, activation="silu"),
            (u, up, s),
        ),
        "gate, kernels, with a site's sums": (
            functools.partial(gated_sums, activation="silu", statistics=declared()),
            (u, up, s, groups),
        ),
    }
    both = torch.stack([u, s])
    size = both.nbytes
    reading = milliseconds(lambda x: x.view(torch.int32).amax(), both)
    table: list[dict[str, Any]] = [{"row": "read", "ms": reading, "error": None}]
    del both
    x = u[..., :HIDDEN].contiguous()
    ways |= {
        "input, kernel": (functools.partial(input_sums.input_sums, kernel_on="cuda"), (x,)),
        "input, compiled": (torch.compile(input_sums.input_sums, dynamic=False), (x,)),
        "input, plain": (input_sums.input_sums, (x,)),
    }
    for name, (function, args) in ways.items():
        error = None
        if name.startswith("input"):
            squares = x.double().square().sum((0, 1))
            error = float((function(x) / squares - 1).abs().max())
        if name.startswith("site") and "follows" not in name:
            found = function(*args)
            error = float(((found - exact).abs().amax(1) / exact.abs().amax(1).clamp_min(1e-300)).max())
        table.append({"row": name, "ms": milliseconds(function, *args), "error": error})
    return [
        {
            "shape": f"{blocks} x {u.shape[1]}",
            **row,
            "bytes_per_second": (x.nbytes if row["row"].startswith("input") else size) / row["ms"] * 1e3,
        }
        for row in table
    ]


def tune(u: torch.Tensor, s: torch.Tensor) -> None:
    """The kernel with other programs; each is another compilation."""
    for columns, count, warps in TUNED:
        token_kernel.SHAPE = columns, count, warps
        for chunk in (128, 256, 512):
            token_sums._CHUNK = chunk
            took = milliseconds(token_sums.fused, u, s)
            print(
                f"{columns:5} channels {count} tokens {warps} warps, chunks of {chunk:4}: {took:.3f} ms",
                flush=True,
            )


def tune_gate(u: torch.Tensor, s: torch.Tensor) -> None:
    """The same with a gate's gradients."""
    up = u.flip(0)
    for columns, count, warps in TUNED_GATE:
        token_kernel.GATE_SHAPE = columns, count, warps
        took = milliseconds(functools.partial(token_sums.fused_with_gate, activation="silu"), u, up, s)
        print(f"gate: {columns:5} channels {count} tokens {warps} warps: {took:.3f} ms", flush=True)


def tune_input(x: torch.Tensor) -> None:
    """The kernel for a network's input with other programs."""
    for columns, count, warps, chunk in TUNED_INPUT:
        input_kernel.SHAPE, input_sums._CHUNK = (columns, count, warps), chunk
        took = milliseconds(functools.partial(input_sums.input_sums, kernel_on="cuda"), x)
        print(
            f"input: {columns:5} channels {count:2} tokens {warps} warps, chunks of {chunk:4}: {took:.4f} ms",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=RECORDS)
    parser.add_argument(
        "--tune", action="store_true", help="time other shapes of the kernel's programs, and end"
    )
    arguments = parser.parse_args()
    table: list[dict[str, Any]] = []
    for blocks, tokens in SHAPES:
        torch.manual_seed(0)
        u = torch.randn(blocks, tokens, CHANNELS, device="cuda", dtype=torch.bfloat16)
        s = 1e-4 * torch.randn_like(u)
        if arguments.tune:
            tune_input(u[..., :HIDDEN].contiguous())
            tune_gate(u, s)
            tune(u, s)
            continue
        table += rows(u, s)
        for row in table:
            if row["shape"] != f"{blocks} x {tokens}":
                continue
            error = "" if row["error"] is None else f"  error {row['error']:.1e}"
            rate = f"{row['bytes_per_second'] / 1e9:7.0f} GB/s"
            print(f"{row['shape']:>9} {row['row']:32}{row['ms']:8.3f} ms{rate}{error}", flush=True)
    if table:
        write_record(
            "sums_kernel",
            f"sums of pass 1 at one site of {CHANNELS} channels, bfloat16",
            folder=arguments.out,
            rows=table,
        )


if __name__ == "__main__":
    main()
