"""Seconds and memory of a profile at several sizes, beside what the cost model says, and the straight lines.

    python benchmarks/scaling.py [--device auto] [--compiled] [--out FOLDER]

Random Llamas, random tokens. On a GPU 0.1B to 8B in bfloat16, 8,192 to 131,072 tokens in blocks of 512 to
8,192: about 100 s of an H100. On a CPU tiny ones in float32 and one thread, in processor time, so that other
work on the machine does not count: about a minute and a half. `python docs/make_scaling.py` puts the record
into docs/scaling.md.
"""

import argparse
import dataclasses
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.stats
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import scarprune as sp
from record import RECORDS, write_record
from scarprune.runtime.device import resolve_device
from scarprune.runtime.memory import peak_bytes, reset_peak
from scarprune.runtime.progress import set_quiet
from scarprune.scaling.machine import measured
from scarprune.scaling.placement import Text, place
from scarprune.scaling.sizes import sizes_of
from scarprune.scaling.stages import Job, forecast
from scarprune.text.blocks import Blocks

# layers, hidden, width, heads, heads of keys and values, vocabulary
GPU = {
    "0.1B": (12, 768, 2048, 12, 4, 32768),
    "0.4B": (24, 1024, 4096, 16, 8, 32768),
    "1B": (16, 2048, 8192, 32, 8, 128256),
    "3B": (28, 3072, 8192, 24, 8, 128256),
    "8B": (32, 4096, 14336, 32, 8, 128256),
}
CPU = {
    "1M": (4, 128, 384, 4, 2, 2048),
    "3M": (6, 192, 640, 6, 2, 2048),
    "6M": (8, 256, 768, 8, 4, 2048),
    "12M": (8, 384, 1024, 12, 4, 2048),
    "34M": (8, 640, 1792, 10, 5, 2048),
}


@dataclass(frozen=True)
class Grid:
    """Which rows are measured: each shape once at ``tokens``; those of ``tried`` at more of both."""

    shapes: dict
    tried: tuple
    tokens: int
    length: int
    more_tokens: tuple
    more_lengths: tuple

    def rows(self):
        for name in self.shapes:
            yield name, "parameters", self.tokens, self.length, False
            if name in self.tried:
                for tokens in self.more_tokens:
                    yield name, "tokens", tokens, self.length, False
                for length in self.more_lengths:
                    yield name, "length", self.tokens // 2, length, False
                yield name, "both passes", self.tokens // 2, self.length, True


ON_GPU = Grid(GPU, ("1B", "8B"), 65536, 512, (8192, 16384, 32768, 131072), (512, 1024, 2048, 4096, 8192))
ON_CPU = Grid(CPU, ("3M",), 4096, 256, (1024, 2048, 8192), (64, 256, 1024))


def model_of(shape, device, dtype):
    layers, hidden, width, heads, kept, vocabulary = shape
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kept,
        max_position_embeddings=8192,
    )
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model.eval().requires_grad_(False)


def profiled(model, tokens, length, vocabulary, batch, both, compiled, clock):
    """Seconds of one profile and the peak in bytes on a GPU."""
    count = tokens // length
    ids = np.random.default_rng(0).integers(0, vocabulary, size=(count, length))
    blocks = Blocks(ids, np.full(count, length), None, "tokens", "random")
    device = next(model.parameters()).device
    reset_peak(device)
    began = clock()
    sp.profile_model(model, blocks, batch=batch, redundancy=both, compiled=compiled)
    return clock() - began, peak_bytes(device)


def processor_rate(dtype):
    """Operations of a 1024 cubed product per second of processor time: the best of several."""
    a = torch.ones(1024, 1024, dtype=dtype)
    best = float("inf")
    for _ in range(9):
        began = time.process_time()
        a @ a
        best = min(best, time.process_time() - began)
    return 2 * 1024**3 / best


def measure(grid, device, dtype, machine, compiled, rounds):
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    rows, model, loaded = [], None, None
    for name, what, tokens, length, both in grid.rows():
        vocabulary = grid.shapes[name][-1]
        if loaded != name:
            model, loaded = model_of(grid.shapes[name], device, dtype), name
            sizes = sizes_of(model, dtype.itemsize)
            warmed = set()
        job = Job(Text(tokens // length, length))
        placed = place(sizes, job.text, machine)
        if (length, placed.batch) not in warmed:
            once = (model, placed.batch * length, length, vocabulary, placed.batch, both, compiled, clock)
            profiled(*once)
            warmed.add((length, placed.batch))
        once = (model, tokens, length, vocabulary, placed.batch, both, compiled, clock)
        runs = [profiled(*once) for _ in range(rounds)]
        seconds, peak = statistics.median(run[0] for run in runs), runs[-1][1]
        stages = forecast(sizes, job, machine)[: 2 if both else 1]
        operations = sum(stage.work.operations for stage in stages)
        said = sum(stage.seconds for stage in stages)
        row = {
            "shape": name,
            "varies": what,
            "parameters": sizes.cost.parameters,
            "matrix_parameters": int(sizes.cost.matrices.total) // 2,
            "tokens": tokens,
            "length": length,
            "batch": placed.batch,
            "passes": 2 if both else 1,
            "operations": operations,
            "seconds": seconds,
            "rounds": [run[0] for run in runs],
            "said_seconds": said,
            "tokens_per_second": tokens / seconds,
            "share_of_ceiling": operations / seconds / machine.operations_per_second,
            "said_peak_bytes": placed.memory_bytes,
            "peak_bytes": peak,
        }
        rows.append(row)
        print(
            f"{name:6}{what:12}{tokens:8}{length:6}{placed.batch:5}{seconds:9.2f} s{seconds / said:6.2f}"
            f"{row['tokens_per_second']:11,.0f} tokens/s{row['share_of_ceiling']:7.3f} of ceiling"
            + ("" if peak is None else f"{peak / 2**30:7.1f} GiB {peak / placed.memory_bytes:5.2f}"),
            flush=True,
        )
    return rows


def line(x, y):
    """The straight line through (x, y): slope, intercept, R^2, largest residual in units of y."""
    fit = scipy.stats.linregress(x, y)
    residual = np.abs(np.asarray(y) - fit.intercept - fit.slope * np.asarray(x)).max()
    return {
        "slope": fit.slope,
        "intercept": fit.intercept,
        "r_squared": fit.rvalue**2,
        "largest_residual": residual,
        "points": len(x),
    }


def fits(rows, grid):
    """Seconds against tokens for each shape tried, against weights in products for all, and both at once."""
    found = {}
    for name in grid.tried:
        chosen = [r for r in rows if r["shape"] == name and r["varies"] in ("tokens", "parameters")]
        found[f"seconds of {name} against tokens"] = line(
            [r["tokens"] for r in chosen], [r["seconds"] for r in chosen]
        )
    chosen = [r for r in rows if r["varies"] == "parameters"]
    found["seconds against weights in products"] = line(
        [r["matrix_parameters"] for r in chosen], [r["seconds"] for r in chosen]
    )
    chosen = [r for r in rows if r["passes"] == 1]
    found["seconds against operations, all rows"] = line(
        [r["operations"] for r in chosen], [r["seconds"] for r in chosen]
    )
    return found


def tokenizing_rate():
    """Tokens per second of the built-in model's tokenizer on its calibration text, one process."""
    _, tokenizer = sp.load_model("demo", device="cpu")
    began = time.process_time()
    blocks = sp.read_blocks("demo", tokenizer, count=256, length=512)
    return int(blocks.lengths.sum()) / (time.process_time() - began), int(blocks.lengths.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compiled", action="store_true", help="Compile what the product can compile.")
    parser.add_argument("--rounds", type=int, help="Of each row; the median counts [default: 1, on a CPU 3].")
    parser.add_argument("--out", type=Path, default=RECORDS)
    arguments = parser.parse_args()
    set_quiet(True)
    device = resolve_device(arguments.device)
    grid = ON_CPU if device.type == "cpu" else ON_GPU
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    if device.type == "cpu":
        torch.set_num_threads(1)
    machine = measured(device, dtype)
    if device.type == "cpu":
        rates = {"operations_per_second": processor_rate(dtype), "float32_per_second": processor_rate(dtype)}
        machine = dataclasses.replace(machine, **rates)
    print(f"{machine.name}: {machine.operations_per_second / 1e12:.3g} TFLOP/s", flush=True)
    print("shape varies        tokens length batch  seconds  /said      tokens/s   share      peak /said")
    rounds = arguments.rounds or (3 if device.type == "cpu" else 1)
    rows = measure(grid, device, dtype, machine, arguments.compiled, rounds)
    lines = fits(rows, grid)
    for what, fit in lines.items():
        print(f"{what}: R^2 {fit['r_squared']:.5f}, largest residual {fit['largest_residual']:.2f} s")
    rate, tokens = tokenizing_rate()
    print(f"tokenizing: {rate:,.0f} tokens/s")
    largest = max((r for r in rows if r["passes"] == 1), key=lambda r: r["operations"])
    peaks = [row["peak_bytes"] for row in rows if row["peak_bytes"] is not None]
    write_record(
        f"scaling_{'cpu' if device.type == 'cpu' else 'gpu'}",
        "pass 1 of a profile at several sizes beside the cost model, random Llamas, "
        + str(dtype).removeprefix("torch."),
        tokens_per_second=largest["tokens_per_second"],
        share_of_ceiling=largest["share_of_ceiling"],
        peak_gib=max(peaks) / 2**30 if peaks else None,
        folder=arguments.out,
        compiled=arguments.compiled,
        clock="processor" if device.type == "cpu" else "wall",
        machine=machine.as_json(),
        rows=rows,
        fits=lines,
        tokenizing={"tokens_per_second": rate, "tokens": tokens},
    )


if __name__ == "__main__":
    main()
