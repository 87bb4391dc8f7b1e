"""How much of what a cut costs comes back: refit, then heal, by calibration seed, with their times.

    python benchmarks/recover.py MODEL [--text TEXT] [--eval TEXT ...] [--seeds 0 1 2 3 4]
        [--sparsities 0.5 0.2] [--heal-seconds 60 30] [--score fisher_activation] [--own-text 2000 4000]

For each seed: blocks of TEXT drawn, text of the model's own written, a profile; for each sparsity a plan, a
refit in memory, the excess on every EVAL, a heal for the seconds of the sparsity, the excess again.
The models work in --dtype and are judged in float32. A text is written once for both: "refit s" is with the
time of writing, "heal s" without.
"""

import argparse
import copy
import gc
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import scarprune as sp
from record import RECORDS, write_record
from scarprune.cut.compensate.job import Bounds
from scarprune.evaluate.perplexity import excess
from scarprune.pipeline.lesson import FOR_HEAL, FOR_REFIT, lesson


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    own = (FOR_REFIT, FOR_HEAL) if torch.cuda.is_available() else (0, 0)
    parser.add_argument("model")
    parser.add_argument("--text", default="demo")
    parser.add_argument("--eval", nargs="+", default=["demo:evaluation"])
    parser.add_argument("--eval-blocks", type=int, default=128)
    parser.add_argument("--blocks", type=int, default=500)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--score", default="fisher_activation")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5, 0.2])
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--tokens", type=int, default=4096, help="of a step of refit")
    parser.add_argument("--heal-seconds", type=float, nargs="*", default=[60.0, 30.0])
    parser.add_argument("--own-text", type=int, nargs=2, default=own, help="blocks for refit and for heal")
    parser.add_argument("--name", default="recover", help="of the record")
    parser.add_argument("--out", type=Path, default=RECORDS)
    return parser.parse_args()


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    done = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began, done


class Judge:
    """Excess over the dense model on every text, in float32."""

    def __init__(self, dense: Any, texts: dict[str, Any]) -> None:
        self.texts = texts
        self.dense = {name: sp.perplexity(dense, text) for name, text in texts.items()}

    def __call__(self, model: Any) -> dict[str, float]:
        exact = copy.deepcopy(model).float()
        return {
            name: excess(self.dense[name], sp.perplexity(exact, text))[0] for name, text in self.texts.items()
        }


class Seed(NamedTuple):
    """What belongs to one seed."""

    number: int
    profile: Any
    learned: Any
    wrote: float
    own: tuple[int, int]

    def text_for_refit(self) -> Any:
        text = self.learned.text  # own text is at its end
        return text.take(np.arange(len(text) - max(self.own) + self.own[0]))

    def text_for_heal(self) -> Any:
        text = self.learned.text
        return text.take(np.arange(len(text) - max(self.own) + self.own[1]))


def prepare(options: argparse.Namespace, dense: Any, tokenizer: Any, number: int) -> Seed:
    blocks = sp.read_blocks(options.text, tokenizer, options.blocks, options.length, number)
    wrote, learned = timed(partial(lesson, dense, tokenizer, blocks, max(options.own_text), number))
    labels = "both" if options.score in ("fisher", "block_fisher", "fisher_activation") else "data"
    redundancy = options.score.startswith("scar")
    profile = sp.profile_model(dense, blocks, labels=labels, redundancy=redundancy, seed=number)
    return Seed(number, profile, learned, wrote, tuple(options.own_text))


def recover(
    options: argparse.Namespace, dense: Any, judge: Judge, seed: Seed, sparsity: float, heal_seconds: float
) -> dict[str, Any]:
    """One row: a plan, what it costs uncompensated, refitted and healed."""
    plan = sp.make_plan(seed.profile, options.score, sparsity)
    with sp.masked(dense, plan):
        none = judge(dense)
    small, held_out = copy.deepcopy(dense), seed.learned.held_out
    bounds = Bounds(steps=options.steps, tokens=options.tokens)
    refit = partial(sp.prune_model, small, plan, "refit", blocks=seed.text_for_refit(), held_out=held_out)
    seconds, report = timed(lambda: refit(bounds=bounds, save_dtype="bfloat16"))
    row = {
        "seed": seed.number,
        "sparsity": sparsity,
        "own_text_seconds": seed.wrote,
        "none": none,
        "refit": judge(small),
        "refit_seconds": seconds,
        "held_out_nats_per_token": report.compensation["held_out_nats_per_token"],
    }
    if heal_seconds:
        heal = partial(sp.heal, small, dense, seed.text_for_heal(), held_out=held_out, seed=seed.number)
        spent, healed = timed(lambda: heal(seconds=heal_seconds))
        row |= {
            "heal": judge(small),
            "heal_seconds": spent,
            "heal_rate": healed.settings.lr,
            "heal_tokens_per_second": healed.tokens_per_second,
            "heal_history": healed.history,
        }
    del small
    gc.collect()
    return row


def words(row: dict[str, Any]) -> str:
    """A line of the table; of several texts the first."""
    none, refit = (next(iter(row[stage].values())) for stage in ("none", "refit"))
    line = f"{row['seed']:4}{row['sparsity']:10.0%}{none:9.4f}{refit:9.4f}"
    line += f"{row['refit_seconds'] + row['own_text_seconds']:9.1f}"
    if "heal" in row:
        heal = next(iter(row["heal"].values()))
        line += f"{heal:9.4f}{row['heal_seconds']:9.1f}{row['heal_tokens_per_second'] or 0:10,.0f}"
    return line


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """Mean and standard deviation over seeds, by sparsity, stage and text."""
    lines = []
    for sparsity in sorted({row["sparsity"] for row in rows}, reverse=True):
        for stage in ("none", "refit", "heal"):
            there = [row[stage] for row in rows if row["sparsity"] == sparsity and stage in row]
            for name in there[0] if there else ():
                found = [values[name] for values in there]
                spread = statistics.stdev(found) if len(found) > 1 else 0.0
                mean = f"{statistics.mean(found):.4f} ± {spread:.4f}"
                lines.append(f"{sparsity:.0%} {stage}: {mean}, {len(found)} seeds, {name}")
    return lines


def record(options: argparse.Namespace, judge: Judge, rows: list[dict[str, Any]]) -> None:
    write_record(
        f"{options.name}_{Path(options.model).stem.lower()}",
        "excess after refit and after heal, by calibration seed",
        peak_gib=torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None,
        folder=options.out,
        dense_perplexity={name: result.perplexity for name, result in judge.dense.items()},
        options={key: str(value) for key, value in vars(options).items() if key not in ("out", "model")},
        rows=rows,
    )


def main() -> None:
    options = arguments()
    dense, tokenizer = sp.load_model(options.model, options.dtype)
    texts = {
        Path(name).name: sp.read_blocks(name, tokenizer, options.eval_blocks, options.length)
        for name in options.eval
    }
    judge = Judge(copy.deepcopy(dense).float(), texts)
    for name, reference in judge.dense.items():
        print(f"dense perplexity {reference.perplexity:.4f} on {reference.tokens:,} tokens of {name}")
    print("seed  sparsity     none    refit  refit s     heal   heal s  tokens/s", flush=True)
    rows = []
    for number in options.seeds:
        seed = prepare(options, dense, tokenizer, number)
        for place, sparsity in enumerate(options.sparsities):
            seconds = options.heal_seconds[place] if place < len(options.heal_seconds) else 0.0
            rows.append(recover(options, dense, judge, seed, sparsity, seconds))
            print(words(rows[-1]), flush=True)
    print("\n".join(summary(rows)))
    record(options, judge, rows)


if __name__ == "__main__":
    main()
