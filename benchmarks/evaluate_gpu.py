"""Perplexity, dense, masked and under many plans at once, beside a bare compiled forward pass.

    python benchmarks/evaluate_gpu.py [1b | 8b] [--shapes 16x512 4x2048] [--plans 8] [--out FOLDER]

Llama-3 shapes of random bfloat16 weights on one GPU. The bare pass: all layers compiled, the final norm, and
the head's matrix product in the chunks of ``perplexity``, with ids that lie on the device and without losses.
Each time is the median of two rounds in which all rows take turns, after a first call that compiles; that
call's time beyond the median is ``compiling``. The ceiling is an 8192 cubed product timed in the same run.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import scarprune as sp
from ablations import elapsed, matmul_rate, operations_above, random_model
from plans_cpu import random_plan
from record import RECORDS, write_record
from scarprune.evaluate.ablate import Ablator
from scarprune.evaluate.plans import removal_of
from scarprune.models.capture import plain_causal_masks
from scarprune.models.compiled import compiled_layers
from scarprune.models.head import find_head
from scarprune.plan.plan import Plan
from scarprune.text.blocks import Blocks

ROUNDS = 2
CHUNK = 2048


def operations_per_token(model, length: int) -> float:
    """Of a forward pass, from what ``ablations`` counts above the first site, and the rest of that layer."""
    sites = sp.find_sites(model)
    above = operations_above(model, sites[0], sites, length)
    one_layer = above - operations_above(model, sites[1], sites, length)
    return above + one_layer - 2 * model.get_submodule(sites[0].name).weight.numel()


class Bench:
    """The rows of one model and one shape of batch."""

    def __init__(self, model, batch: int, length: int, batches: int, plans: list[Plan]) -> None:
        ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (batch * batches, length))
        self.model, self.batch = model, batch
        self.blocks = Blocks(ids, np.full(len(ids), length), None, "tokens", "random")
        self.ids = torch.from_numpy(ids).to(model.device)
        self.head = find_head(model)
        self.plans = plans

    @torch.no_grad()
    def bare(self, *, with_head: bool = True) -> None:
        with compiled_layers(self.model), plain_causal_masks():
            for ids in self.ids.split(self.batch):
                hidden = self.head.hidden(ids)
                for chunk in hidden.flatten(0, 1).split(CHUNK) if with_head else ():
                    self.head.linear(chunk)

    def perplexity(self, compiled: bool) -> None:
        sp.perplexity(self.model, self.blocks, batch=self.batch, compiled=compiled)

    def masked(self) -> None:
        with sp.masked(self.model, self.plans[0]):
            self.perplexity(True)

    def several(self) -> Callable[[], None]:
        few = self.blocks.take(np.arange(self.batch))
        ablator = Ablator(self.model, few, batch=self.batch, compiled=True)
        removals = [removal_of(plan) for plan in self.plans]
        return lambda: ablator.losses(removals)

    def rows(self) -> dict[str, tuple[Callable[[], object], int]]:
        """Name -> what to call, and the tokens it takes through the model."""
        tokens = self.ids.numel()
        together = self.batch * self.ids.shape[1] * len(self.plans)
        return {
            "bare, layers alone": (lambda: self.bare(with_head=False), tokens),
            "bare compiled forward": (self.bare, tokens),
            "perplexity": (lambda: self.perplexity(True), tokens),
            "perplexity, not compiled": (lambda: self.perplexity(False), tokens),
            "perplexity, masked": (self.masked, tokens),
            f"{len(self.plans)} plans at once": (self.several(), together),
        }


def measure(bench: Bench, ceiling: float, shape: str) -> list[dict]:
    rows = bench.rows()
    first = {name: elapsed(work) for name, (work, _) in rows.items()}
    times = {name: [] for name in rows}
    peaks = {}
    for _ in range(ROUNDS):
        for name, (work, _) in rows.items():
            torch.cuda.reset_peak_memory_stats()
            times[name].append(elapsed(work))
            peaks[name] = torch.cuda.max_memory_allocated() / 2**30
    operations = operations_per_token(bench.model, bench.ids.shape[1])
    bare = rows["bare compiled forward"][1] / statistics.median(times["bare compiled forward"])
    found = []
    for name, (_, tokens) in rows.items():
        took = statistics.median(times[name])
        found.append(
            {
                "row": name,
                "shape": shape,
                "tokens_per_second": tokens / took,
                "share_of_bare": tokens / took / bare,
                "share_of_ceiling": tokens / took * operations / ceiling if "alone" not in name else None,
                "compiling": first[name] - took,
                "peak_gib": peaks[name],
                "seconds": times[name],
            }
        )
    return found


def say_break_even(model, table: list[dict], shape: str) -> float:
    """Operations from which on compiling pays: what it takes over what it saves of each."""
    by_name = {row["row"]: row for row in table if row["shape"] == shape}
    operations = operations_per_token(model, int(shape.partition("x")[2]))
    each = [
        1 / (by_name[name]["tokens_per_second"] * operations)
        for name in ("perplexity, not compiled", "perplexity")
    ]
    compiling = by_name["bare, layers alone"]["compiling"] + by_name["perplexity"]["compiling"]
    found = compiling / (each[0] - each[1]) if each[0] > each[1] else float("inf")
    print(f"{shape}: {compiling:.1f} s of compiling pay from {found:.2g} operations on")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="1b", choices=["1b", "8b"])
    parser.add_argument("--shapes", nargs="+", default=["16x512", "4x2048"])
    parser.add_argument("--batches", type=int, help="for perplexity [16 of 1b, 4 of 8b]")
    parser.add_argument("--plans", type=int, default=8)
    parser.add_argument("--out", type=Path, default=RECORDS)
    arguments = parser.parse_args()
    model = random_model(arguments.model, torch.bfloat16, "cuda")
    ceiling = matmul_rate(torch.bfloat16, "cuda")
    plans = [random_plan(model, seed) for seed in range(arguments.plans)]
    batches = arguments.batches or {"1b": 16, "8b": 4}[arguments.model]
    table = []
    for shape in arguments.shapes:
        batch, length = map(int, shape.split("x"))
        few = plans[: max(1, arguments.plans * 512 // length)]
        table += measure(Bench(model, batch, length, batches, few), ceiling, shape)
    even = {shape: say_break_even(model, table, shape) for shape in arguments.shapes}
    best = next(row for row in table if row["row"] == "perplexity")
    write_record(
        f"evaluate_gpu_{arguments.model}",
        f"perplexity of Llama-3's {arguments.model} shape, random bfloat16, layers compiled, {best['shape']}",
        tokens_per_second=best["tokens_per_second"],
        share_of_ceiling=best["share_of_ceiling"],
        peak_gib=best["peak_gib"],
        folder=arguments.out,
        share_of_bare=best["share_of_bare"],
        matmul_tflops=ceiling / 1e12,
        pays_from_operations=even,
        rows=table,
    )
    print(f"{torch.cuda.get_device_name()}, {arguments.model}: matmul ceiling {ceiling / 1e12:.0f} TFLOP/s")
    for row in table:
        share = row["share_of_ceiling"]
        print(
            f"{row['shape']:>8} {row['row']:26}{row['tokens_per_second']:10,.0f} tokens/s"
            f"{row['share_of_bare']:7.3f} of bare"
            + (f"{share:7.3f} of ceiling" if share is not None else " " * 18)
            + f"{row['compiling']:7.1f} s compiling{row['peak_gib']:6.1f} GiB"
        )


if __name__ == "__main__":
    main()
