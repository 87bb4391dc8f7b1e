"""Time and peak memory of a compensated cut in memory, each compensation in a fresh process.

    python benchmarks/compensate.py [demo | FOLDER | SHAPE] [--compensate ls refit] [--blocks 512]

SHAPE is hidden:intermediate:layers:vocabulary of a random Llama, bfloat16 on a GPU, float32 on a CPU;
that of Llama-3.1-8B, but for its fewer key-value heads, is 4096:14336:32:128256. Channels are chosen at
random: neither time nor memory depends on which.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

import random_llama
import scarprune as sp
from record import RECORDS, write_record
from scarprune.cut.compensate.job import Bounds
from scarprune.models.fingerprint import fingerprint_model
from scarprune.profile.sums import Profile
from scarprune.text.blocks import Blocks


def random_plan(model, sparsity: float):
    sites = sp.find_sites(model)
    tensors = {f"{site.name}/sum_q2": np.zeros((3, site.width)) for site in sites}
    header = {"fingerprint": fingerprint_model(model), "labels": ["data"]}
    return sp.make_plan(Profile(sites=sites, header=header, tensors=tensors), "random", sparsity)


def one(arguments: argparse.Namespace, name: str) -> dict:
    """Compensate once in this process."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    stored = arguments.model == "demo" or Path(arguments.model).is_dir()
    model = sp.load_model(arguments.model)[0] if stored else random_llama.whole(arguments.model, device)
    shape = (arguments.blocks, arguments.length)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, size=shape)
    blocks = Blocks(ids, np.full(arguments.blocks, arguments.length), None, "tokens", "random")
    plan = random_plan(model, arguments.sparsity)
    bounds = Bounds(arguments.steps, arguments.seconds, arguments.tokens)
    on_gpu = next(model.parameters()).is_cuda
    began = time.perf_counter()
    report = sp.prune_model(model, plan, name, blocks=blocks, bounds=bounds)
    if on_gpu:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    peak = torch.cuda.max_memory_reserved() if on_gpu else 1024 * _largest_resident_kib()
    found = report.compensation
    return {
        "compensate": name,
        "seconds": seconds,
        "peak_gib": peak / 2**30,
        "allocated_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
        "kept": found and found["kept"],
        "held_out_nats_per_token": found and found["held_out_nats_per_token"],
    }


def _largest_resident_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--compensate", nargs="+", default=["none", "ls", "refit"])
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--blocks", type=int, default=512)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--steps", type=int, help="of refit, a layer")
    parser.add_argument("--seconds", type=float, help="of refit, all layers")
    parser.add_argument("--tokens", type=int, default=4096, help="of a step and of a batch")
    parser.add_argument("--out", type=Path, default=RECORDS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments, arguments.one)))
        return
    rows = []
    print(f"{'compensate':12}{'seconds':>9}{'peak GiB':>10}{'kept':>8}  held-out nats per token")
    for name in arguments.compensate:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        losses = row["held_out_nats_per_token"] or {}
        nats = ", ".join(f"{step} {loss:.4f}" for step, loss in losses.items() if loss is not None)
        print(
            f"{name:12}{row['seconds']:9.1f}{row['peak_gib']:10.2f}{row['kept'] or '':>8}  {nats}", flush=True
        )
    write_record(
        f"compensate_{arguments.model.replace(':', '_').replace('/', '_')}",
        "time and peak memory of prune_model with a compensation, besides load and save; fresh processes",
        peak_gib=max(row["peak_gib"] for row in rows),
        folder=arguments.out,
        model=arguments.model,
        sparsity=arguments.sparsity,
        blocks=arguments.blocks,
        length=arguments.length,
        tokens_of_a_step=arguments.tokens,
        steps=arguments.steps,
        seconds=arguments.seconds,
        rows=rows,
    )


if __name__ == "__main__":
    main()
