"""Single-channel ablations against the arithmetic that they need: the forward pass above the site.

    python benchmarks/ablations.py [1b | 8b | MODEL] [--removals 128] [--sites 4] [--blocks 4] [--length 512]

1b and 8b are Llama-3 shapes of random weights; MODEL is a folder, a .gguf file or demo. The text is random
ids. The ceiling is a square product in the same dtype, timed in the same run; the arithmetic of one removal
and token: 2 operations for each weight from the site's down projection up, and causal attention. On a GPU
once with the layers as they are and once compiled (--compile), which is what the record's figures are of;
the first call, which compiles, is told apart.
"""

import argparse
import functools
import os
import re
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import scarprune as sp
from record import RECORDS, write_record
from scarprune.evaluate.ablate import Ablator
from scarprune.evaluate.removal import Removal
from scarprune.text.blocks import Blocks

SHAPES = {"1b": (2048, 8192, 16, 32, 8), "8b": (4096, 14336, 32, 32, 8)}


def random_model(shape: str, dtype: torch.dtype, device: str) -> LlamaForCausalLM:
    hidden, intermediate, layers, heads, kv = SHAPES[shape]
    config = LlamaConfig(
        vocab_size=128256,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        max_position_embeddings=8192,
        rope_theta=500000.0,
        tie_word_embeddings=shape == "1b",
    )
    torch.set_default_dtype(dtype)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model.eval().requires_grad_(False)


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matmul_rate(dtype: torch.dtype, device: str) -> float:
    """Operations per second of a square product of random numbers: median of 15."""
    size = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(20):
        wait()
        began = time.perf_counter()
        a @ b
        wait()
        times.append(time.perf_counter() - began)
    return 2 * size**3 / statistics.median(times[5:])


def operations_above(model, site, sites, length: int) -> float:
    """Operations per token of the forward pass from the down projection of ``site`` up, head included."""
    above = {re.match(r".*?\.\d+\.", other.name).group() for other in sites if other.layer > site.layer}
    weights = model.get_submodule(site.name).weight.numel() + model.get_output_embeddings().weight.numel()
    for name, parameter in model.named_parameters():
        if parameter.dim() == 2 and any(name.startswith(prefix) for prefix in above):
            weights += parameter.numel()
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = 2 * 2 * length / 2 * head * config.num_attention_heads  # causal: half the scores
    return 2 * weights + attention * len(above)


def measure(ablator: Ablator, tried: dict[str, np.ndarray], rounds: int, ceiling: float) -> list[dict]:
    """One row a site, of as many single channels as ``tried`` has for it."""
    model, rows = ablator.model, []
    for site in (site for site in ablator.sites if site.name in tried):
        count = len(tried[site.name])
        channels = np.random.default_rng(site.layer).choice(site.width, count, replace=False)
        removals = [Removal({site.name: np.array([channel])}) for channel in channels]
        work = functools.partial(ablator.losses, removals)
        first, *times = (elapsed(work) for _ in range(rounds + 1))
        tokens = count * int(ablator.blocks.lengths.sum())
        length = int(ablator.blocks.lengths.max())
        floor = operations_above(model, site, ablator.sites, length) * tokens / ceiling
        taken = statistics.median(times)
        rows.append({"site": site.name, "removals": count, "tokens": tokens, "branch": ablator.branch})
        rows[-1] |= {"floor": floor, "seconds": taken, "times": times, "first": first}
        rows[-1]["over_arithmetic"] = taken / floor
    return rows


def elapsed(work) -> float:
    wait()
    began = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - began


def _usual(device: str) -> str:
    return "both" if device == "cuda" else "off"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="1b")
    parser.add_argument("--removals", type=int, default=128, help="in all, spread over the sites")
    parser.add_argument("--sites", type=int, default=4, help="evenly apart, first and last among them")
    parser.add_argument("--blocks", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--dtype", default="auto", help="float32, bfloat16 or auto: bfloat16 on a GPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--compile", choices=["on", "off", "both"], help="both on a GPU, off elsewhere")
    parser.add_argument("--out", type=Path, default=RECORDS)
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = arguments.dtype if arguments.dtype != "auto" else {"cuda": "bfloat16", "cpu": "float32"}[device]
    dtype = getattr(torch, name)
    if arguments.model in SHAPES:
        model = random_model(arguments.model, dtype, device)
    else:
        model, _ = sp.load_model(arguments.model, dtype=name, device=device)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (arguments.blocks, arguments.length))
    blocks = Blocks(ids, np.full(len(ids), arguments.length), None, "tokens", "random")
    sites = sp.find_sites(model)
    chosen = np.unique(np.linspace(0, len(sites) - 1, min(arguments.sites, len(sites))).round().astype(int))
    shares = np.array_split(np.arange(arguments.removals), len(chosen))
    tried = {site.name: share for site, share in zip([sites[i] for i in chosen], shares, strict=True)}
    processor = time.process_time()
    ceiling = matmul_rate(dtype, device)
    modes = {"both": [False, True], "on": [True], "off": [False]}[arguments.compile or _usual(device)]
    runs = {
        mode: measure(Ablator(model, blocks, compiled=mode), tried, arguments.rounds, ceiling)
        for mode in modes
    }
    print(f"{device}, {name}: matmul ceiling {ceiling / 1e12:.3g} TFLOP/s")
    for mode, rows in runs.items():
        print("compiled layers:" if mode else "layers as they are:")
        for row in rows:
            print(
                f"  {row['site']:32}{row['removals']:5} removals{row['seconds']:9.2f} s"
                f"{row['tokens'] / row['seconds']:12,.0f} tokens/s"
                f"{row['over_arithmetic']:7.2f} times the arithmetic{row['first']:8.1f} s at first"
            )
        seconds, floor = (sum(row[key] for row in rows) for key in ("seconds", "floor"))
        print(f"  all: {seconds:.2f} s, {seconds / floor:.2f} times the arithmetic")
    tokens = sum(row["tokens"] for row in rows)
    label = Path(arguments.model).name.lower()
    write_record(
        f"ablations_{'gpu' if device == 'cuda' else 'cpu'}_{label}_{name}",
        f"{arguments.removals} single-channel ablations of {label} at {len(rows)} sites, "
        f"{arguments.blocks} x {arguments.length} tokens, {name}",
        tokens_per_second=tokens / seconds,
        share_of_ceiling=floor / seconds,
        peak_gib=torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None,
        folder=arguments.out,
        matmul_tflops=ceiling / 1e12,
        seconds=seconds,
        processor_seconds=time.process_time() - processor,  # of all rounds and threads, and the ceiling
        load_average=os.getloadavg()[0],
        over_arithmetic=seconds / floor,
        compiled=modes[-1],
        rows=rows,
        rows_not_compiled=runs[False] if len(runs) > 1 else None,
    )


if __name__ == "__main__":
    main()
