"""Plans judged together beside one by one, and removals that begin at each layer, in forward passes.

    OMP_NUM_THREADS=1 python benchmarks/plans_cpu.py [--blocks 8] [--length 256] [--plans 7] [--out FOLDER]

On the built-in model, in processor time, so that other work on the machine does not count; the unit is
one ``perplexity`` of the dense model. Plans remove half of all channels at random; the others as much at a
layer and all above it.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import scarprune as sp
from record import RECORDS, write_record
from scarprune.evaluate.ablate import Ablator
from scarprune.evaluate.plans import judge_plans, removal_of
from scarprune.evaluate.removal import Removal
from scarprune.models.fingerprint import fingerprint_model
from scarprune.plan.plan import Plan, PlannedSite

ROUNDS = 3


def random_plan(model, seed: int) -> Plan:
    """Half of the channels of each site."""
    rng = np.random.default_rng(seed)

    def half(width: int) -> np.ndarray:
        return np.sort(rng.permutation(width)[: width // 2])

    sites = tuple(
        PlannedSite(site.name, site.layer, site.width, half(site.width), np.array([0]))
        for site in sp.find_sites(model)
    )
    return Plan(sites, score="random", sparsity=0.5, fingerprint=fingerprint_model(model))


def processor_seconds(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--plans", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RECORDS)
    options = parser.parse_args()
    model, tokenizer = sp.load_model("demo", device="cpu")
    text = sp.read_blocks("demo:evaluation", tokenizer, count=options.blocks, length=options.length)
    plans = [random_plan(model, seed) for seed in range(options.plans)]
    ablator = Ablator(model, text)

    def one_by_one() -> None:
        for plan in plans:
            with sp.masked(model, plan):
                sp.perplexity(model, text)

    def above(layer: int) -> Callable[[], object]:
        names = {site.name for site in ablator.sites[layer:]}
        cut = [{n: c for n, c in removal_of(plan).channels.items() if n in names} for plan in plans]
        return lambda: ablator.losses([Removal(channels) for channels in cut])

    rows: dict[str, Callable[[], object]] = {
        "one by one": one_by_one,
        "together": lambda: judge_plans(ablator, plans),
        **{f"from layer {site.layer} on": above(site.layer) for site in ablator.sites},
    }
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(ROUNDS):
        dense = statistics.median(processor_seconds(lambda: sp.perplexity(model, text)) for _ in range(5))
        for name, work in rows.items():
            times[name].append(processor_seconds(work) / len(plans) / dense)
    for name, found in times.items():
        spread = f"({min(found):.2f} to {max(found):.2f})"
        print(f"{name:20}{statistics.median(found):6.2f} forward passes a plan {spread}")
    write_record(
        "plans_cpu",
        f"{len(plans)} plans on the built-in model, {options.blocks} x {options.length} tokens, float32",
        folder=options.out,
        forward_passes_a_plan={name: statistics.median(found) for name, found in times.items()},
        rounds=times,
    )


if __name__ == "__main__":
    main()
