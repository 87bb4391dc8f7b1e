"""How fast a model heals on this device, and how far, by what is compiled and captured.

    python benchmarks/heal.py MODEL [--text TEXT] [--seconds 60] [--sparsity 0.5] [--variants graph,objective]
        [--out FOLDER]

Cuts half of the channels of MODEL by the loss proxy, then heals a fresh copy with each variant: `eager`,
`graph` (steps are CUDA graphs), `objective` (its rows compiled as well), `layers` (these too). Prints tokens
per second, steps, the divergence on held-out blocks, and the excess on --eval. Other settings of heal:
--set lr=1e-3 --set batch=32.
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import torch

import scarprune as sp
from record import RECORDS, write_record
from scarprune.evaluate.perplexity import excess

VARIANTS: dict[str, dict[str, Any]] = {
    "eager": {"graph": False, "compile": "none"},
    "graph": {"compile": "none"},
    "objective": {"compile": "objective"},
    "layers": {"compile": "layers"},
}


def number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        return float(text) if text.replace(".", "").replace("e-", "").isdigit() else text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--text", default="demo")
    parser.add_argument("--eval", default="demo:evaluation")
    parser.add_argument("--eval-blocks", type=int, default=128)
    parser.add_argument("--blocks", type=int)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--variants", default="eager,graph,objective,layers")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, default=RECORDS)
    options = parser.parse_args()
    changes = {name: number(value) for name, _, value in (word.partition("=") for word in options.set)}

    dense, tokenizer = sp.load_model(options.model, options.dtype)
    blocks = sp.read_blocks(options.text, tokenizer, options.blocks, options.length)
    judged = sp.read_blocks(options.eval, tokenizer, options.eval_blocks, options.length)
    profile = sp.profile_model(dense, blocks.take(range(min(128, len(blocks)))), redundancy=False)
    plan = sp.make_plan(profile, "loss_proxy", options.sparsity)
    small = copy.deepcopy(dense)
    sp.prune_model(small, plan)
    reference = sp.perplexity(dense, judged)
    cut = excess(reference, sp.perplexity(small, judged))[0]
    print(f"{len(blocks)} blocks; excess of the cut {cut:.4f}")
    print("variant      tokens/s   steps  seconds  peak GiB  held-out nats     excess")
    rows = []
    for name in options.variants.split(","):
        student = copy.deepcopy(small)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        healed = sp.heal(student, dense, blocks, seconds=options.seconds, **VARIANTS[name], **changes)
        peak = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
        found = excess(reference, sp.perplexity(student, judged))[0]
        print(
            f"{name:10s} {healed.tokens_per_second or 0:10,.0f} {healed.steps:7,} {healed.seconds:8.1f} "
            f"{peak or 0:9.1f}  {healed.before:.4f}->{healed.after:.4f} {found:10.4f}",
            flush=True,
        )
        del student
        rows.append({"variant": name, "excess_nats": found, "peak_gib": peak, **healed.as_json()})
    write_record(
        f"heal_{Path(options.model).stem.lower()}",
        "healing a cut model for a time, by what is compiled and captured",
        tokens_per_second=rows[-1]["tokens_per_second"],
        peak_gib=rows[-1]["peak_gib"],
        folder=options.out,
        text=options.text,
        blocks=len(blocks),
        length=options.length,
        sparsity=options.sparsity,
        excess_of_the_cut_nats=cut,
        rows=rows,
    )


if __name__ == "__main__":
    main()
