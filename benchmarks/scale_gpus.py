"""Pass 1 of a profile on one GPU, on all by data parallelism, and on all by tensor parallelism.

    NCCL_NVLS_ENABLE=0 torchrun --nproc-per-node 2 benchmarks/scale_gpus.py [--layers 32] [--blocks 384]
        [--length 512] [--batch 16] [--rounds 3] [--eager] [--out FOLDER]

Llama-3.1-8B shape, random bfloat16 weights, the product's own loop from the first block to the sums of all
processes. Each row takes the whole text; the rows alternate in rounds after one short warm-up each. The
parts are loaded from a checkpoint of the same weights (in /dev/shm where it has room) and lie beside the
whole model: peaks hold both. What a run does once, compiling and comparing its first compiled batch with an
eager one, is left to the warm-up. "furthest" is how far the loss proxy of a site is from the one GPU's,
relative; "core kept" the least share of a site's core (1%) that is the same.
"""

import argparse
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import scarprune as sp
from profile_gpu import matmul_rate, model_8b, operations_per_token
from record import RECORDS, write_record
from scarprune.models.load import load_model
from scarprune.profile.accumulate import SumsPass
from scarprune.profile.groups import assign_groups
from scarprune.profile.passes import begin, first_scale, prepared
from scarprune.profile.state import Keeper, State
from scarprune.profile.statistics.statistic import statistics as declared
from scarprune.runtime.garbage import collect_rarely
from scarprune.runtime.memory import peak_bytes, reset_peak
from scarprune.runtime.progress import set_quiet
from scarprune.runtime.ranks import ALONE, Ranks, find_ranks, joined
from scarprune.stats.select import largest
from scarprune.text.blocks import Blocks

SHARED_MEMORY = Path("/dev/shm")


def text(blocks: int, length: int, vocabulary: int) -> Blocks:
    ids = np.random.default_rng(0).integers(0, vocabulary, size=(blocks, length))
    return Blocks(ids, np.full(blocks, length), None, "tokens", "random ids")


def pass_1(
    model: Any, blocks: Blocks, batch: int, ranks: Ranks, compiled: bool, proven: bool = False
) -> tuple[float, dict[str, np.ndarray]]:
    """Seconds from the first block to the sums of all processes, and the loss proxy of every site."""
    sites = sp.find_sites(model)
    state = State({}, next_block=ranks.share(blocks.lengths)[0], scale=first_scale(model))
    with prepared(model):
        run = begin(
            model,
            sites,
            blocks,
            assign_groups(len(blocks), None),
            state,
            Keeper(None),
            batch=batch,
            totals=0,
            work=0.0,
            what="Timing",
            compiled=compiled,
            ranks=ranks,
        )
        run.compiling.proven = proven
        observer = SumsPass(sites, declared(), ranks)
        ranks.wait()
        began = time.perf_counter()
        totals = run.through(1, observer, ("data",))
        seconds = time.perf_counter() - began  # the sums are on the CPU: nothing is left to wait for
    return seconds, {site.name: totals[f"{site.name}/sum_q2"].sum(0) for site in sites}


def compare(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> tuple[float, float]:
    """The furthest relative difference of a site's loss proxy, and the least share of a core that is kept."""
    furthest, kept = 0.0, 1.0
    for name, proxy in expected.items():
        furthest = max(furthest, abs(found[name].sum() / proxy.sum() - 1))
        count = max(1, len(proxy) // 100)
        both = np.intersect1d(largest(found[name], count), largest(proxy, count))
        kept = min(kept, len(both) / count)
    return furthest, kept


def load(layers: int, ranks: Ranks, device: str) -> tuple[Any, Any]:
    """The model whole on this GPU, and this process's part of it."""
    torch.manual_seed(0)
    whole = model_8b(layers).requires_grad_(False)
    size = sum(parameter.numel() * parameter.element_size() for parameter in whole.parameters())
    roomy = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free > 1.2 * size
    folder = (SHARED_MEMORY if roomy else Path(tempfile.gettempdir())) / "scarprune-scale"
    if ranks.first:
        shutil.rmtree(folder, ignore_errors=True)
        whole.save_pretrained(folder)
    ranks.wait()
    part, _ = load_model(folder, str(whole.dtype).removeprefix("torch."), device, ranks=ranks)
    ranks.wait()
    if ranks.first:
        shutil.rmtree(folder)
    return whole, part


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=384)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--out", type=Path, default=RECORDS)
    arguments = parser.parse_args()
    os.environ.setdefault("NCCL_NVLS_ENABLE", "0")
    set_quiet(True)
    collect_rarely()  # as the command line does
    with joined("auto") as device:
        count = int(os.environ["WORLD_SIZE"])
        copies, parts = find_ranks(), find_ranks(count)
        whole, part = load(arguments.layers, parts, device)
        vocabulary = whole.config.vocab_size
        blocks = text(arguments.blocks, arguments.length, vocabulary)
        few = text(2 * count * arguments.batch, arguments.length, vocabulary)
        rows = {
            "one GPU": (whole, ALONE, 1),
            f"data parallel, {count}": (whole, copies, count),
            f"tensor parallel, {count}": (part, parts, count),
        }
        seconds: dict[str, list[float]] = {name: [] for name in rows}
        peaks, proxies = {}, {}
        place = next(whole.parameters()).device
        for turn in range(arguments.rounds + 1):
            for name, (model, ranks, _) in rows.items():
                if ranks.count > 1 or copies.first:
                    reset_peak(place)
                    took, proxies[name] = pass_1(
                        model,
                        blocks if turn else few,
                        arguments.batch,
                        ranks,
                        compiled=not arguments.eager,
                        proven=turn > 0,
                    )
                    peaks[name] = peak_bytes(place)
                    seconds[name] += [took] if turn else []
                copies.wait()
        if copies.first:
            report(arguments, whole, rows, seconds, peaks, proxies)


def report(
    arguments: Any,
    model: Any,
    rows: dict[str, Any],
    seconds: dict[str, list[float]],
    peaks: dict[str, int | None],
    proxies: dict[str, Any],
) -> None:
    ceiling = matmul_rate()
    print(f"{torch.cuda.device_count()} GPUs: matmul ceiling {ceiling / 1e12:.0f} TFLOP/s each")
    floor = operations_per_token(model, arguments.length) / ceiling
    tokens = arguments.blocks * arguments.length
    table: list[dict[str, Any]] = []
    for name, (_, _, gpus) in rows.items():
        rate = tokens / statistics.median(seconds[name])
        furthest, kept = compare(proxies[name], proxies["one GPU"])
        peak = peaks[name]
        table.append(
            {
                "row": name,
                "tokens_per_second": rate,
                "times_one_gpu": rate / table[0]["tokens_per_second"] if table else 1.0,
                "share_of_ceiling": rate * floor / gpus,
                "peak_gib": None if peak is None else peak / 2**30,
                "seconds": seconds[name],
                "furthest": furthest,
                "core_kept": kept,
            }
        )
        row = table[-1]
        print(
            f"{name:20}{rate:10,.0f} tokens/s {row['times_one_gpu']:6.3f} x {row['share_of_ceiling']:6.3f} "
            f"of ceiling  {row['peak_gib'] or 0:5.1f} GiB  furthest {furthest:.1e}  core kept {kept:.3f}",
            flush=True,
        )
    write_record(
        "scale_gpus",
        f"pass 1 of a profile, Llama-3.1-8B shape, random bfloat16, {arguments.blocks} x {arguments.length}: "
        f"{table[1]['row']}",
        tokens_per_second=table[1]["tokens_per_second"],
        share_of_ceiling=table[1]["share_of_ceiling"],
        peak_gib=table[1]["peak_gib"],
        folder=arguments.out,
        gpus=torch.cuda.device_count(),
        layers=arguments.layers,
        batch=arguments.batch,
        compiled=not arguments.eager,
        matmul_tflops=ceiling / 1e12,
        rows=table,
    )


if __name__ == "__main__":
    main()
