"""Pass 1 of a profile beside a bare frozen forward and backward: same tokens, batch, threads and dtype.

    python benchmarks/profile_cpu.py [MODEL] [--blocks 16] [--length 512] [--batch 4] [--rounds 5]

The two alternate in one run; the ratio of the medians is what counts. Also compares the memory estimate
with the peak of a fresh process.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

import scarprune as sp
from record import RECORDS, write_record
from scarprune.models.context import vocabulary_size
from scarprune.models.head import find_head
from scarprune.profile import passes
from scarprune.profile.loss import loss_gradient
from scarprune.profile.passes import prepared
from scarprune.runtime.progress import set_quiet


def bare(model, head, blocks, batch, vocabulary):
    """A forward and a backward pass down to the first site's input, with nothing watched."""
    first = model.get_submodule(sp.find_sites(model)[0].name)
    handle = first.register_forward_pre_hook(lambda module, args: (args[0].detach().requires_grad_(),))
    for start in range(0, len(blocks), batch):
        ids = torch.from_numpy(blocks.ids[start : start + batch])
        hidden = head.hidden(ids)
        gradient = loss_gradient(head, hidden, ids, ("data",), None, vocabulary).gradient["data"]
        torch.autograd.backward(hidden, gradient)
    handle.remove()


def memory_of_a_fresh_process(arguments) -> None:
    """Profile once and print the estimate that was said and the peak that was reached, in bytes."""
    model, tokenizer = sp.load_model(arguments.model, dtype="float32", device="cpu")
    blocks = sp.read_blocks("demo", tokenizer, count=arguments.blocks, length=arguments.length)
    estimate = []

    def catch(what, model, blocks, way, *more):
        estimate.append(way.peak)

    passes.say_before = catch
    sp.profile_model(model, blocks, batch=arguments.batch)
    print(estimate[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RECORDS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.memory:
        return memory_of_a_fresh_process(arguments)
    set_quiet(True)
    model, tokenizer = sp.load_model(arguments.model, dtype="float32", device="cpu")
    blocks = sp.read_blocks("demo", tokenizer, count=arguments.blocks, length=arguments.length)
    vocabulary, tokens = vocabulary_size(model), int(blocks.lengths.sum())
    seconds: dict[str, list[float]] = {"bare": [], "watched": []}
    with prepared(model):
        head = find_head(model)
        for round_number in range(arguments.rounds + 1):
            began = time.perf_counter()
            bare(model, head, blocks, arguments.batch, vocabulary)
            middle = time.perf_counter()
            sp.profile_model(model, blocks, batch=arguments.batch, redundancy=False)
            if round_number:  # the first round warms up
                seconds["bare"].append(middle - began)
                seconds["watched"].append(time.perf_counter() - middle)
    ratio = statistics.median(seconds["watched"]) / statistics.median(seconds["bare"])
    command = [sys.executable, __file__, *sys.argv[1:], "--memory"]
    fresh = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    estimated, peak = (int(number) for number in fresh)
    print(f"{'':10}{'median s':>10}{'min s':>10}{'tokens/s':>10}")
    for name, runs in seconds.items():
        middle = statistics.median(runs)
        print(f"{name:10}{middle:10.2f}{min(runs):10.2f}{tokens / middle:10.0f}")
    print(f"watched / bare: {ratio:.3f} (minima: {min(seconds['watched']) / min(seconds['bare']):.3f})")
    print(f"memory: estimated {estimated >> 20} MiB, peak {peak >> 20} MiB ({estimated / peak:.2f})")
    write_record(
        f"profile_cpu_{Path(arguments.model).stem}",
        "pass 1 of a profile beside a bare frozen forward and backward, float32",
        tokens_per_second=tokens / statistics.median(seconds["watched"]),
        peak_gib=peak / 2**30,
        folder=arguments.out,
        ratio=ratio,
        seconds=seconds,
        estimated_gib=estimated / 2**30,
        shape={"blocks": arguments.blocks, "length": arguments.length, "batch": arguments.batch},
    )


if __name__ == "__main__":
    main()
