"""Measuring on one GPU: the product's own loop, bare passes, the published code's way, and the ceiling.

    python benchmarks/profile_gpu.py [--layers 32] [--seconds 10] [--out FOLDER] [--no-profile]

Llama-3.1-8B shape, random bfloat16 weights. At 4 x 2048 and 16 x 512 tokens: forward and backward down to
the first site, eager and compiled, bare and watched. Beside them arXiv 2604.23475's way: 1 x 512, mean loss,
gradients of the weights, full backward hooks. All rows of one shape alternate in rounds. Operations per
token: 4 x matmul parameters plus attention; the ceiling is an 8192 cubed bfloat16 product timed in the same
run. First of all ``profile_model`` from a loaded model: 128 x 512 tokens, both passes, compiled or not as it
decides by itself. "first s" is a row's first step: what the compiler takes.
"""

import argparse
import contextlib
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import scarprune as sp
from record import RECORDS, write_record
from scarprune.models.context import vocabulary_size
from scarprune.models.head import find_head
from scarprune.profile.accumulate import SumsPass
from scarprune.profile.compiling import Compiling
from scarprune.profile.loss import loss_gradient
from scarprune.profile.passes import begin, prepared
from scarprune.profile.state import Keeper, State
from scarprune.profile.statistics.statistic import statistics as declared
from scarprune.profile.watch import blank
from scarprune.runtime.progress import set_quiet
from scarprune.text.blocks import Blocks

SHAPES = ((16, 512), (4, 2048))
PUBLISHED = "published, 1 x 512"
VOCABULARY = 128256


def model_8b(layers: int) -> Any:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        rope_theta=500000.0,
        attn_implementation="sdpa",
    )
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model.eval()


def text(blocks: int, length: int) -> Blocks:
    ids = np.random.default_rng(0).integers(0, VOCABULARY, size=(blocks, length))
    return Blocks(
        ids=ids, lengths=np.full(blocks, length), bytes=None, protocol="tokens", source="random ids"
    )


def matmul_rate() -> float:
    """Operations per second of an 8192 cubed bfloat16 product of random numbers: median of 20."""
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(25):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        a @ b
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    return 2 * 8192**3 / statistics.median(times[5:])


def operations_per_token(model: Any, length: int) -> float:
    config = model.config
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "embed_tokens" not in n)
    attention = 2 * 2 * length / 2 * config.hidden_size * config.num_hidden_layers  # causal: half the scores
    return 4 * matrices + 2 * attention + attention


class Begins(torch.autograd.Function):
    """The identity where the graph of a bare pass begins; what comes back there is computed all the same."""

    @staticmethod
    def forward(ctx: Any, u: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
        return u.view_as(u)

    @staticmethod
    def backward(ctx: Any, s: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, s


class Bare:
    """A forward and a backward pass down to the first site, with nothing watched."""

    def __init__(self, model: Any, batch: int, length: int, compiled: bool) -> None:
        self.model, self.head, self.tokens = model, find_head(model), batch * length
        self.first = sp.find_sites(model)[0]
        self.leaf = blank((batch, length, self.first.width), torch.bfloat16, torch.device("cuda"))
        self.leaf.requires_grad_().register_post_accumulate_grad_hook(self.forget)
        self.ids = torch.from_numpy(text(batch, length).ids).cuda()
        self.vocabulary = vocabulary_size(model)
        self.compiling = Compiling(compiled, np.full(batch, length))

    @contextlib.contextmanager
    def ready(self):
        first = self.model.get_submodule(self.first.name)
        handle = first.register_forward_pre_hook(lambda module, args: (Begins.apply(args[0], self.leaf),))
        try:
            with self.compiling.layers(self.model):
                yield
        finally:
            handle.remove()

    @staticmethod
    def forget(leaf: torch.Tensor) -> None:
        leaf.grad = None

    def step(self) -> None:
        hidden = self.head.hidden(self.ids)
        rows = self.compiling.rows
        found = loss_gradient(self.head, hidden, self.ids, ("data",), None, self.vocabulary, rows=rows)
        torch.autograd.backward(hidden, found.gradient["data"])


class Watched:
    """One batch of pass 1 after another, as ``profile_model`` takes them."""

    def __init__(self, model: Any, batch: int, length: int, compiled: bool) -> None:
        blocks, sites, self.tokens = text(batch, length), sp.find_sites(model), batch * length
        self.observer = SumsPass(sites, declared())
        self.run = begin(
            model,
            sites,
            blocks,
            np.arange(batch) % 8,
            State({}),
            Keeper(None),
            batch=batch,
            totals=0,
            work=0.0,
            what="Timing",
            compiled=compiled,
        )
        self.compiled = compiled

    @contextlib.contextmanager
    def ready(self):
        with self.run.watched(self.observer):
            yield
        if self.run.compiling.on != self.compiled:
            raise SystemExit("The compiler failed: see the remark above.")

    def step(self) -> None:
        self.run.state.next_block = 0
        self.run.step(self.observer, ("data",))


class Published:
    """One text of 512 tokens: mean loss, gradients of all weights, full backward hooks, float32 sums."""

    def __init__(self, model: Any) -> None:
        self.model, self.tokens = model, 512
        self.ids = torch.from_numpy(text(1, 512).ids).cuda()
        self.sums: dict[str, torch.Tensor] = {}

    @contextlib.contextmanager
    def ready(self):
        kept: dict[str, torch.Tensor] = {}
        handles = []
        for site in sp.find_sites(self.model):
            down = self.model.get_submodule(site.name)
            handles.append(down.register_forward_hook(self._forward(site.name, kept)))
            handles.append(down.register_full_backward_hook(self._backward(site.name, kept)))
        self.model.requires_grad_(True)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self.model.zero_grad(set_to_none=True)
            self.model.requires_grad_(False)

    @staticmethod
    def _forward(name: str, kept: dict[str, torch.Tensor]) -> Any:
        def hook(module, args, output):
            kept[name] = args[0].detach()

        return hook

    def _backward(self, name: str, kept: dict[str, torch.Tensor]) -> Any:
        def hook(module, grad_input, grad_output):
            u, s = kept.pop(name).float().flatten(0, 1), grad_input[0].float().flatten(0, 1)
            product = u * s
            sums = torch.stack(
                [u.square().sum(0), s.square().sum(0), product.abs().sum(0), product.square().sum(0)]
            )
            self.sums[name] = self.sums[name] + sums if name in self.sums else sums

        return hook

    def step(self) -> None:
        self.model.zero_grad(set_to_none=True)
        self.model(input_ids=self.ids, labels=self.ids, use_cache=False).loss.backward()


def timed(row: Any, seconds: float) -> float:
    """Seconds a step, over as many as fill ``seconds``; the device is waited for at both ends alone."""
    with row.ready():
        row.step()
        torch.cuda.synchronize()
        began = time.perf_counter()
        row.step()
        torch.cuda.synchronize()
        steps = max(2, round(seconds / (time.perf_counter() - began)))
        began = time.perf_counter()
        for _ in range(steps):
            row.step()
        torch.cuda.synchronize()
        return (time.perf_counter() - began) / steps


def first_step(row: Any) -> float:
    """Seconds of the first step, compilation included."""
    began = time.perf_counter()
    with row.ready():
        row.step()
        torch.cuda.synchronize()
    return time.perf_counter() - began


def measure(rows: dict[str, Any], seconds: float, rounds: int = 3) -> list[dict[str, Any]]:
    """Rows in rounds, every other round backwards, so that no row is always the one after another."""
    firsts = {name: first_step(row) for name, row in rows.items()}
    times: dict[str, list[float]] = {name: [] for name in rows}
    peaks: dict[str, float] = {}
    for number in range(rounds):
        for name in list(rows)[:: -1 if number % 2 else 1]:
            torch.cuda.reset_peak_memory_stats()
            times[name].append(timed(rows[name], seconds / rounds))
            peaks[name] = torch.cuda.max_memory_allocated() / 2**30
    return [
        {
            "row": name,
            "tokens_per_second": row.tokens / statistics.median(times[name]),
            "first_step_seconds": firsts[name],
            "peak_gib": peaks[name],
            "seconds": times[name],
        }
        for name, row in rows.items()
    ]


def rows_of(model: Any, batch: int, length: int) -> dict[str, Any]:
    rows: dict[str, Any] = {PUBLISHED: Published(model)} if length == 512 else {}
    for name, compiled in (("eager", False), ("compiled", True)):
        rows[f"bare, {name}"] = Bare(model, batch, length, compiled)
        rows[f"watched, {name}"] = Watched(model, batch, length, compiled)
    return rows


def whole_profile(model: Any) -> dict[str, Any]:
    """``profile_model`` of 128 x 512 tokens, both passes, from a loaded model."""
    blocks = text(128, 512)
    torch._dynamo.reset()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    profile = sp.profile_model(model, blocks)
    seconds = time.perf_counter() - began
    return {
        "row": "whole profile, both passes",
        "shape": "128 x 512",
        "profile_seconds": seconds,
        "compiled": profile.header["provenance"]["compiled"],
        "tokens_per_second": blocks.ids.size / seconds,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
    }


def show(table: list[dict[str, Any]]) -> None:
    head = ("shape", "row", "tokens/s", "ceiling", "watching", "x published", "GiB", "first s")
    print(
        "".join(f"{word:>{width}}" for word, width in zip(head, (10, 28, 10, 9, 10, 13, 7, 9), strict=True))
    )
    for row in table:
        if "profile_seconds" in row:
            print(f"{row['shape']:>10}{row['row']:>28}{row['profile_seconds']:9.1f} s in all", end="")
            print(f", {'compiled' if row['compiled'] else 'eager'}, {row['peak_gib']:.1f} GiB")
            continue
        cost = "" if row["cost_over_bare"] is None else f"{100 * row['cost_over_bare']:+.1f}%"
        print(
            f"{row['shape']:>10}{row['row']:>28}{row['tokens_per_second']:10,.0f}{row['share_of_ceiling']:9.3f}"
            f"{cost:>10}{row['times_published']:13.2f}{row['peak_gib']:7.1f}{row['first_step_seconds']:9.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each row: some 7 steps a round")
    parser.add_argument("--out", type=Path, default=RECORDS)
    parser.add_argument("--no-profile", action="store_true", help="leave the whole profile out")
    arguments = parser.parse_args()
    set_quiet(False)
    model = model_8b(arguments.layers)
    ceiling = matmul_rate()
    print(f"{torch.cuda.get_device_name()}: matmul ceiling {ceiling / 1e12:.0f} TFLOP/s", flush=True)
    table: list[dict[str, Any]] = []
    published = 0.0
    if not arguments.no_profile:
        table.append(whole_profile(model))
    with prepared(model):
        for batch, length in SHAPES:
            found = measure(rows_of(model, batch, length), arguments.seconds)
            floor = operations_per_token(model, length) / ceiling
            rates = {row["row"]: row["tokens_per_second"] for row in found}
            published = (
                rates.get("published, 1 x 512") or table[1 - arguments.no_profile]["tokens_per_second"]
            )
            for row in found:
                bare = rates.get(row["row"].replace("watched", "bare"))
                watched = row["row"].startswith("watched")
                row |= {
                    "shape": f"{batch} x {length}",
                    "share_of_ceiling": row["tokens_per_second"] * floor,
                    "cost_over_bare": bare / row["tokens_per_second"] - 1 if watched else None,
                    "times_published": row["tokens_per_second"] / published,
                }
            table += found
            torch.cuda.empty_cache()
    best = min(
        (row for row in table if row["row"] == "watched, compiled"), key=lambda row: row["share_of_ceiling"]
    )
    write_record(
        "profile_gpu_8b",
        f"pass 1 of a profile, Llama-3.1-8B shape, random bfloat16, compiled layers, {best['shape']}",
        tokens_per_second=best["tokens_per_second"],
        share_of_ceiling=best["share_of_ceiling"],
        peak_gib=best["peak_gib"],
        folder=arguments.out,
        times_published=best["times_published"],
        matmul_tflops=ceiling / 1e12,
        layers=arguments.layers,
        rows=table,
    )
    show(table)


if __name__ == "__main__":
    main()
