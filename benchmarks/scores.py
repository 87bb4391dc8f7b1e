"""How long a saved profile of an 8B model takes to load, to score and to plan: prints a table, writes JSON.

    python benchmarks/scores.py [--sites 32] [--width 14336] [--record scores_cpu_8b]

The numbers in the profile are random; the tensors are those a profile with both kinds of labels holds.
"""

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from record import RECORDS, write_record
from scarprune.models.site import Site
from scarprune.plan.plan import load_plan, make_plan
from scarprune.profile import sums
from scarprune.profile.sums import Profile, load_profile
from scarprune.scores.core import core
from scarprune.scores.score import score, scores

SCORE_LIMIT_S, LOAD_LIMIT_S = 0.050, 1.0
BLOCKS, LENGTH, HIDDEN = 128, 512, 4096


def random_profile(count: int, width: int) -> Profile:
    rng = np.random.default_rng(0)
    sites = [Site(f"model.layers.{i}.mlp.down_proj", i, width, HIDDEN, True) for i in range(count)]
    shapes = sums.expected_shapes() | dict.fromkeys(("block_mean_abs_u_squared", "block_norm_u"), ())
    tensors = {}
    for site in sites:
        for name, leading in shapes.items():
            for prefix in ("", "model/") if name in sums.LABELLED else ("",):
                array = rng.lognormal(0, 2, (*leading, width))
                tensors[f"{site.name}/{prefix}{name}"] = sums.stored(name, array)
        tensors[f"{site.name}/sum_x2"] = np.ones(HIDDEN, np.float32)
        tensors[f"{site.name}/support"] = np.arange(HIDDEN // 16)
    header = {
        "fingerprint": "0" * 64,
        "labels": ["data", "model"],
        "rho": 0.01,
        "counts": {
            "targets": [BLOCKS, 3 * BLOCKS, (LENGTH - 5) * BLOCKS],
            "positions": [BLOCKS, 3 * BLOCKS, (LENGTH - 4) * BLOCKS],
            "blocks": BLOCKS,
        },
        "groups": [BLOCKS // sums.GROUPS * (LENGTH - 1)] * sums.GROUPS,
        "text": [],
        "provenance": {},
    }
    profile = Profile(sites, header, tensors)
    for name, indices in core(profile).items():
        tensors[f"{name}/red/core"] = indices
    return profile


def seconds(work: Callable[[], object], repeats: int = 7) -> dict[str, float]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return {"median_s": float(np.median(times)), "min_s": min(times), "max_s": max(times)}


def measure(count: int, width: int) -> tuple[dict[str, dict[str, float]], int]:
    with tempfile.TemporaryDirectory() as folder:
        path, plan_path = Path(folder) / "p.safetensors", Path(folder) / "plan.json"
        random_profile(count, width).save(path)
        profile = load_profile(path)
        rows = {"load the profile": seconds(lambda: load_profile(path), 5)}
        rows |= {f"score {item.name}": seconds(lambda n=item.name: score(profile, n)) for item in scores()}
        rows["core"] = seconds(lambda: core(profile))
        rows["plan scar_prot, uniform"] = seconds(lambda: make_plan(profile), 5)
        rows["plan scar_prot, global"] = seconds(lambda: make_plan(profile, allocation="global"), 5)
        plan = make_plan(profile)
        rows["save the plan"] = seconds(lambda: plan.save(plan_path, overwrite=True), 5)
        rows["load the plan"] = seconds(lambda: load_plan(plan_path), 5)
        return rows, path.stat().st_size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sites", type=int, default=32)
    parser.add_argument("--width", type=int, default=14336)
    parser.add_argument("--record", default="scores_cpu_8b", help="name of the record")
    parser.add_argument("--out", type=Path, default=RECORDS)
    options = parser.parse_args()
    rows, size = measure(options.sites, options.width)
    limits = {"load the profile": LOAD_LIMIT_S} | {n: SCORE_LIMIT_S for n in rows if n.startswith("score ")}
    print(f"{options.sites} sites x {options.width} channels, a file of {size / 1e6:.0f} MB")
    print(f"{'':32}{'median':>10}{'worst':>10}{'limit':>10}  ms")
    for name, row in rows.items():
        limit = limits.get(name)
        mark = "" if limit is None or row["median_s"] < limit else "  TOO SLOW"
        shown = "" if limit is None else f"{1000 * limit:.0f}"
        print(f"{name:32}{1000 * row['median_s']:10.1f}{1000 * row['max_s']:10.1f}{shown:>10}{mark}")
    path = write_record(
        options.record,
        what=f"load, score and plan from a saved profile of {options.sites} sites x {options.width}",
        folder=options.out,
        peak_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        load_average=os.getloadavg()[0],  # others on the machine slow every row
        profile_bytes=size,
        rows=rows,
    )
    print(f"Written to {path}.")


if __name__ == "__main__":
    main()
