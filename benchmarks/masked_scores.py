"""What each score and each allocation costs: excess in nats of the masked model, without compensation.

    python benchmarks/masked_scores.py MODEL CALIBRATION EVALUATION [--blocks 128] [--judged 64] [--seeds 0]

One profile a seed, with both kinds of labels and the extra passes that the scores need; widths are not
rounded (multiple_of=1).
The texts are what ``--text`` of the command line takes; ``.npy`` blocks are the same for every seed.
"""

import argparse
import statistics
import time
from pathlib import Path

import scarprune as sp
from record import RECORDS, write_record
from scarprune.evaluate.perplexity import excess
from scarprune.profile.sums import extra_of
from scarprune.scores.score import find_score, scores

SPARSITIES = (0.2, 0.5, 0.7)
ALLOCATIONS = (
    "uniform",
    "global",
    "global_raw",
    "global_standard",
    "linear:0.25",
    "linear:0.5",
    "linear:-0.25",
    "linear:-0.5",
    "middle",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("calibration")
    parser.add_argument("evaluation")
    parser.add_argument("--blocks", type=int, default=128, help="to measure on")
    parser.add_argument("--judged", type=int, default=64, help="blocks to judge on")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--scores", nargs="*", default=[item.name for item in scores()])
    parser.add_argument("--allocated", nargs="*", default=["scar_prot", "fisher_activation", "flap_wifv"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--record", default="masked_scores")
    parser.add_argument("--out", type=Path, default=RECORDS)
    options = parser.parse_args()
    model, tokenizer = sp.load_model(options.model, dtype=options.dtype)
    judged = sp.read_blocks(options.evaluation, tokenizer, count=options.judged, length=options.length)
    dense = sp.perplexity(model, judged)
    by_score: dict[str, dict[str, list[float]]] = {}
    by_allocation: dict[str, dict[str, list[float]]] = {}
    errors: list[float] = []

    def judge(plan: sp.Plan) -> float:
        with sp.masked(model, plan):
            nats, error = excess(dense, sp.perplexity(model, judged))
        errors.append(error or 0.0)
        return nats

    chosen = [find_score(name) for name in {*options.scores, *options.allocated}]
    needed = {extra_of(need) for score in chosen for need in score.needs} - {None}
    for seed in options.seeds:
        text = sp.read_blocks(options.calibration, tokenizer, options.blocks, options.length, seed)
        start = time.perf_counter()
        profile = sp.profile_model(model, text, labels="both", extras=tuple(sorted(needed)), seed=seed)
        print(f"seed {seed}: profile in {time.perf_counter() - start:.0f} s", flush=True)
        for sparsity in SPARSITIES:
            for name in options.scores:
                plan = sp.make_plan(profile, name, sparsity, multiple_of=1, seed=seed)
                by_score.setdefault(name, {}).setdefault(str(sparsity), []).append(judge(plan))
            for name in options.allocated if sparsity <= 0.5 else ():
                for allocation in ALLOCATIONS:
                    plan = sp.make_plan(profile, name, sparsity, multiple_of=1, allocation=allocation)
                    row = by_allocation.setdefault(f"{name} {allocation}", {})
                    row.setdefault(str(sparsity), []).append(judge(plan))
    for rows in (by_score, by_allocation):
        for name, row in rows.items():
            print(f"{name:36}" + "".join(f"{statistics.mean(values):9.3f}" for values in row.values()))
    print(f"standard error over blocks, median of all: {statistics.median(errors):.3f}")
    write_record(
        options.record,
        "excess (nats) by score and by allocation, masked, without compensation; a number per seed",
        folder=options.out,
        model=Path(options.model).name,
        calibration=Path(options.calibration).name,
        evaluation=Path(options.evaluation).name,
        blocks=[options.blocks, len(judged), options.length],
        seeds=options.seeds,
        dense_perplexity=dense.perplexity,
        median_standard_error=statistics.median(errors),
        excess=by_score,
        allocation=by_allocation,
    )


if __name__ == "__main__":
    main()
