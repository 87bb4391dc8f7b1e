"""How much of what a cut costs comes back: refit, then heal, by calibration seed, with their times.

    python benchmarks/recover.py MODEL [--text TEXT] [--eval TEXT] [--seeds 0 1 2 3 4] [--sparsities 0.5 0.2]
        [--heal-seconds 60 30] [--score fisher_activation] [--own-text auto] [--out FOLDER]

For each seed: blocks of TEXT drawn, text of the model's own written, a profile; for each sparsity a plan, a
refit in memory, the excess on EVAL, a heal for the seconds that belong to the sparsity, the excess again.
What is written belongs to the time of both: seconds of a refit and of a heal are given with it.
"""

import argparse
import copy
import gc
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

import scarprune as sp
from record import RECORDS, write_record
from scarprune.cut.compensate.job import Bounds
from scarprune.evaluate.perplexity import excess
from scarprune.pipeline.lesson import lesson


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--text", default="demo")
    parser.add_argument("--eval", default="demo:evaluation")
    parser.add_argument("--eval-blocks", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=500)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--score", default="fisher_activation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5, 0.2])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--tokens", type=int, default=4096, help="of a step of refit")
    parser.add_argument("--heal-seconds", type=float, nargs="*", default=[60.0, 30.0])
    parser.add_argument("--heal-lr", type=float, nargs="*", default=[3e-4, 2e-4])
    parser.add_argument("--own-text", default="auto", type=lambda word: word if word == "auto" else int(word))
    parser.add_argument("--name", default="recover", help="of the record")
    parser.add_argument("--out", type=Path, default=RECORDS)
    return parser.parse_args()


def timed(work: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    done = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began, done


def main() -> None:
    options = arguments()
    dense, tokenizer = sp.load_model(options.model, options.dtype)
    judged = sp.read_blocks(options.eval, tokenizer, options.eval_blocks, options.length)
    reference = sp.perplexity(dense, judged)
    print(f"dense perplexity {reference.perplexity:.4f} on {reference.tokens:,} tokens", flush=True)
    print("seed  sparsity     none    refit  seconds     heal  seconds  tokens/s", flush=True)
    rows = []
    for seed in options.seeds:
        blocks = sp.read_blocks(options.text, tokenizer, options.blocks, options.length, seed)
        wrote, learned = timed(lambda: lesson(dense, tokenizer, blocks, options.own_text, seed))  # noqa: B023
        labels = "both" if options.score in ("fisher", "block_fisher", "fisher_activation") else "data"
        profile = sp.profile_model(
            dense, blocks, labels=labels, redundancy=options.score.startswith("scar"), seed=seed
        )
        for place, sparsity in enumerate(options.sparsities):
            row = recover(options, dense, judged, reference, learned, profile, sparsity, seed, place)
            row["own_text_seconds"] = wrote
            row["own_text"] = learned.own
            rows.append(row)
            print(words(row, wrote), flush=True)
    for sparsity in options.sparsities:
        for stage in ("none", "refit", "heal"):
            found = [row[stage] for row in rows if row["sparsity"] == sparsity and stage in row]
            if found:
                spread = statistics.stdev(found) if len(found) > 1 else 0.0
                print(
                    f"{sparsity:.0%} {stage}: {statistics.mean(found):.4f} ± {spread:.4f}, {len(found)} seeds"
                )
    write_record(
        f"{options.name}_{Path(options.model).stem.lower()}",
        "excess after refit and after heal, by calibration seed",
        peak_gib=torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None,
        folder=options.out,
        dense_perplexity=reference.perplexity,
        options={key: str(value) for key, value in vars(options).items()},
        rows=rows,
    )


def words(row: dict[str, Any], wrote: float) -> str:
    line = f"{row['seed']:4}{row['sparsity']:10.0%}{row['none']:9.4f}{row['refit']:9.4f}"
    line += f"{row['refit_seconds'] + wrote:9.1f}"
    if "heal" in row:
        line += f"{row['heal']:9.4f}{row['heal_seconds'] + wrote:9.1f}{row['heal_tokens_per_second']:10,.0f}"
    return line


def recover(
    options: argparse.Namespace,
    dense: Any,
    judged: Any,
    reference: Any,
    learned: Any,
    profile: Any,
    sparsity: float,
    seed: int,
    place: int,
) -> dict[str, Any]:
    """One row: a plan, what it costs uncompensated, refitted and healed."""
    plan = sp.make_plan(profile, options.score, sparsity)
    with sp.masked(dense, plan):
        none = sp.perplexity(dense, judged)
    small = copy.deepcopy(dense)
    bounds = Bounds(steps=options.steps, tokens=options.tokens)
    refit = partial(sp.prune_model, small, plan, "refit", blocks=learned.text, held_out=learned.held_out)
    seconds, report = timed(lambda: refit(bounds=bounds, save_dtype="bfloat16"))
    row = {
        "seed": seed,
        "sparsity": sparsity,
        "none": excess(reference, none)[0],
        "refit": excess(reference, sp.perplexity(small, judged))[0],
        "refit_seconds": seconds,
        "held_out_nats_per_token": report.compensation["held_out_nats_per_token"],
    }
    if place < len(options.heal_seconds):
        budget, lr = options.heal_seconds[place], options.heal_lr[place]
        heal = partial(sp.heal, small, dense, learned.text, held_out=learned.held_out, seed=seed)
        spent, healed = timed(lambda: heal(seconds=budget, lr=lr))
        row |= {
            "heal": excess(reference, sp.perplexity(small, judged))[0],
            "heal_seconds": spent,
            "heal_tokens_per_second": healed.tokens_per_second,
            "heal_history": healed.history,
        }
    del small
    gc.collect()
    return row


if __name__ == "__main__":
    main()
