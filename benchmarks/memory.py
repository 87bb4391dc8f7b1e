"""Memory said before a profile starts beside the peak that it reaches, and its speed, in fresh processes.

    python benchmarks/memory.py [ROW ...] [--blocks 16] [--length 512] [--name NAME] [--out FOLDER]

ROW is MODEL[@BOUND][/SOURCE]. MODEL: demo, 1b, 8b, 70b (random Llamas of these shapes) or
hidden:intermediate:layers:vocabulary; bfloat16 on a GPU, float32 on a CPU. BOUND: as --memory, such as 20GiB.
SOURCE: whole (default); memory: layers streamed from CPU memory, four distinct ones cycled; files: layers
streamed from a checkpoint in --folder, written first where it is not there.
A rate is of pass 1 alone; the share is of an 8192 cubed bfloat16 product timed in the same process, at 4
operations a weight and token and those of attention, whatever is computed twice.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

import random_llama
import scarprune as sp
from profile_gpu import matmul_rate, operations_per_token
from record import RECORDS, write_record
from scarprune.profile import passes as passes_module
from scarprune.runtime.memory import gib
from scarprune.runtime.size import parse_size
from scarprune.text.blocks import Blocks


def load(name: str, source: str, folder: Path):
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "demo":
        return sp.load_model(name)[0]
    if source == "files":
        random_llama.write(name, folder / name.replace(":", "-"))
        return sp.load_model(folder / name.replace(":", "-"), streamed=True)[0]
    return (random_llama.streamed if source == "memory" else random_llama.whole)(name, device)


def one(row: str, arguments) -> dict:
    """Profile once in this process."""
    gpu = torch.cuda.is_available()
    ceiling = matmul_rate() if gpu else None
    model_and_bound, _, source = row.partition("/")
    name, _, bound = model_and_bound.partition("@")
    began = time.perf_counter()
    model = load(name, source, arguments.folder)
    loading = time.perf_counter() - began
    count, length = arguments.blocks, arguments.length
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, size=(count, length))
    blocks = Blocks(ids, np.full(count, length), None, "tokens", "random")
    ways, seconds = [], []
    say, walk = passes_module.say_before, passes_module.Run.walk

    def catch(what, model, blocks, way, *more):
        ways.append(way)
        say(what, model, blocks, way, *more)

    def timed(run, *more):
        start = time.perf_counter()
        totals = walk(run, *more)  # on the CPU
        seconds.append(time.perf_counter() - start)
        return totals

    passes_module.say_before, passes_module.Run.walk = catch, timed
    batch = arguments.batch if arguments.batch == "auto" else int(arguments.batch)
    compiled = {"auto": "auto", "on": True, "off": False}[arguments.compile]
    options = {
        "batch": batch,
        "compiled": compiled,
        "memory": bound or "auto",
        "redundancy": arguments.passes == 2,
    }
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if arguments.warm:
        sp.profile_model(model, blocks, **options | {"redundancy": False})
        seconds.clear()
    began = time.perf_counter()
    sp.profile_model(model, blocks, **options)
    whole = time.perf_counter() - began
    peak = (
        torch.cuda.max_memory_allocated()
        if gpu
        # What getrusage calls the peak counts the parent's memory as well.
        else int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    )
    rate = count * length / seconds[0]
    way = ways[-1]
    return {
        "row": row,
        "way": way.kind,
        "compile": arguments.compile,
        "bound": parse_size(bound) if bound else None,
        "batch": way.batch,
        "together": way.together,
        "said": way.peak,
        "said_on_cpu": way.aside,
        "peak": peak,
        "reserved": torch.cuda.max_memory_reserved() if gpu else None,
        "ratio": way.peak / peak,
        "seconds_loading": loading,
        "seconds_of_passes": seconds,
        "seconds": whole,
        "tokens_per_second": rate,
        "share_of_ceiling": rate * operations_per_token(model, length) / ceiling if gpu else None,
        "matmul_tflops": ceiling / 1e12 if gpu else None,
    }


def run(row: str, rest: list[str]) -> dict:
    """One row in a process of its own."""
    environment = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", **os.environ}
    command = [sys.executable, __file__, row, "--one", *rest]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("rows", nargs="*", default=["demo"])
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", default="auto")
    parser.add_argument("--passes", type=int, choices=(1, 2), default=2)
    parser.add_argument("--compile", choices=("auto", "on", "off"), default="auto")
    parser.add_argument("--warm", action="store_true", help="run pass 1 once before it is timed")
    parser.add_argument("--folder", type=Path, default=Path("checkpoints"), help="of checkpoints for /files")
    parser.add_argument("--name", help="of the record [default: memory_gpu or memory_cpu]")
    parser.add_argument("--out", type=Path, default=RECORDS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(one(arguments.rows[0], arguments)))
        return
    rest = [word for word in sys.argv[1:] if word not in arguments.rows]
    rows = []
    print(
        f"{'row':28}{'way':>13}{'batch':>6}{'said':>10}{'peak':>10}{'ratio':>6}{'tokens/s':>10}{'ceiling':>8}{'s':>7}"
    )
    for row in arguments.rows:
        found = run(row, rest)
        rows.append(found)
        share = found["share_of_ceiling"]
        print(
            f"{row:28}{found['way']:>13}{found['batch']:6}{gib(found['said']):>10}{gib(found['peak']):>10}"
            f"{found['ratio']:6.2f}{found['tokens_per_second']:10,.0f}"
            f"{'' if share is None else f'{share:.3f}':>8}{found['seconds']:7.1f}",
            flush=True,
        )
    write_record(
        arguments.name or f"memory_{'gpu' if torch.cuda.is_available() else 'cpu'}",
        "memory said before a profile beside the peak it reached, and the speed of pass 1, fresh processes",
        tokens_per_second=rows[-1]["tokens_per_second"],
        share_of_ceiling=rows[-1]["share_of_ceiling"],
        peak_gib=max(row["peak"] for row in rows) / 2**30,
        folder=arguments.out,
        blocks=arguments.blocks,
        length=arguments.length,
        rows=rows,
    )


if __name__ == "__main__":
    main()
