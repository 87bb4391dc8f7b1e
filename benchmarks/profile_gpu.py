"""Pass 1 of a profile on one GPU beside a bare frozen forward and backward, against the matmul ceiling.

    python benchmarks/profile_gpu.py [--layers 32] [--seconds 8] [--out FOLDER]

Llama-3.1-8B shape, random bfloat16 weights. Rows: bare; watched with plain sums; watched with compiled
sums. All rows of one shape run in one process, alternating. Operations per token: 4 x matmul parameters
plus attention; the ceiling is an 8192 cubed bfloat16 product timed in the same run.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import scarprune as sp
from record import RECORDS, write_record
from scarprune.models.context import vocabulary_size
from scarprune.models.head import find_head
from scarprune.profile.accumulate import SumsPass
from scarprune.profile.loss import loss_gradient
from scarprune.profile.passes import prepared
from scarprune.profile.statistics.statistic import statistics as declared
from scarprune.profile.watch import watching


def model_8b(layers: int) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=128256,
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
    return model.eval().requires_grad_(False)


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


def operations_per_token(model, length: int) -> float:
    config = model.config
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "embed_tokens" not in n)
    attention = 2 * 2 * length / 2 * config.hidden_size * config.num_hidden_layers  # causal: half the scores
    return 4 * matrices + 2 * attention + attention


class Shape:
    """One batch of one shape, run the same way with and without an observer."""

    def __init__(self, model, head, batch, length):
        self.model, self.head, self.batch, self.length = model, head, batch, length
        self.ids = torch.from_numpy(np.random.default_rng(0).integers(0, 128256, size=(batch, length)))
        self.vocabulary = vocabulary_size(model)
        self.groups = np.zeros(batch, dtype=np.int64)

    def step(self, observer=None):
        hidden = self.head.hidden(self.ids)
        gradient = loss_gradient(self.head, hidden, self.ids, ("data",), None, self.vocabulary).gradient[
            "data"
        ]
        torch.autograd.backward(hidden, gradient)
        if observer is not None:
            observer.commit()

    def bare(self):
        first = self.model.get_submodule(sp.find_sites(self.model)[0].name)
        handle = first.register_forward_pre_hook(lambda module, args: (args[0].detach().requires_grad_(),))
        self.step()
        handle.remove()

    def watched(self, observer):
        observer.begin(self.groups, self.length)
        with watching(self.model, observer.sites, observer.observe, observer.observe_input):
            self.step(observer)


def timed(function, seconds: float) -> float:
    """Seconds a call, over as many calls as fill ``seconds``; the device is waited for at both ends."""
    torch.cuda.synchronize()
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        function()
        torch.cuda.synchronize()
        calls += 1
    return (time.perf_counter() - began) / calls


def measure(shape: Shape, rows, seconds: float, rounds: int = 3):
    for function in rows.values():
        function()
    times = {name: [] for name in rows}
    peaks = {}
    for _ in range(rounds):
        for name, function in rows.items():
            torch.cuda.reset_peak_memory_stats()
            times[name].append(timed(function, seconds / rounds))
            peaks[name] = torch.cuda.max_memory_allocated() / 2**30
    return times, peaks


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=RECORDS)
    arguments = parser.parse_args()
    model = model_8b(arguments.layers)
    sites = sp.find_sites(model)
    ceiling = matmul_rate()
    print(f"{torch.cuda.get_device_name()}: matmul ceiling {ceiling / 1e12:.0f} TFLOP/s")
    table = []
    with prepared(model):
        head = find_head(model)
        for batch, length in ((4, 2048), (16, 512)):
            shape = Shape(model, head, batch, length)
            eager = SumsPass(sites, declared())
            fused = SumsPass(sites, declared(), compiled=True)
            rows = {
                "bare": shape.bare,
                "watched": lambda shape=shape, eager=eager: shape.watched(eager),
                "watched, compiled sums": lambda shape=shape, fused=fused: shape.watched(fused),
            }
            times, peaks = measure(shape, rows, arguments.seconds)
            floor = operations_per_token(model, length) / ceiling
            base = statistics.median(times["bare"])
            for name, runs in times.items():
                rate = batch * length / statistics.median(runs)
                table.append(
                    {
                        "row": name,
                        "shape": f"{batch} x {length}",
                        "tokens_per_second": rate,
                        "share_of_ceiling": rate * floor,
                        "cost_over_bare": statistics.median(runs) / base - 1,
                        "peak_gib": peaks[name],
                        "seconds": runs,
                    }
                )
                print(
                    f"{batch:3} x {length:5} {name:24}{rate:10,.0f} tokens/s {rate * floor:6.3f} of ceiling"
                    f" {100 * table[-1]['cost_over_bare']:+6.1f}% {peaks[name]:6.1f} GiB",
                    flush=True,
                )
            del eager, fused
    best = next(row for row in table if row["row"] == "watched, compiled sums")
    write_record(
        "profile_gpu_8b",
        "pass 1 of a profile, Llama-3.1-8B shape, random bfloat16, compiled sums, 4 x 2048",
        tokens_per_second=best["tokens_per_second"],
        share_of_ceiling=best["share_of_ceiling"],
        peak_gib=best["peak_gib"],
        folder=arguments.out,
        matmul_tflops=ceiling / 1e12,
        layers=arguments.layers,
        rows=table,
    )


if __name__ == "__main__":
    main()
