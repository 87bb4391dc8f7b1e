"""The memory said before a profile starts beside the peak that it reaches, each in a fresh process.

    python benchmarks/memory.py [demo | SHAPE ...] [--blocks 16] [--length 512] [--out FOLDER]

SHAPE is hidden:intermediate:layers:vocabulary of a random Llama, bfloat16 on a GPU, float32 on a CPU.
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
from transformers import LlamaConfig, LlamaForCausalLM

import scarprune as sp
from record import RECORDS, write_record
from scarprune.profile import passes as passes_module
from scarprune.text.blocks import Blocks


def load(name: str):
    if ":" not in name:
        return sp.load_model(name)[0]
    hidden, intermediate, layers, vocabulary = map(int, name.split(":"))
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        max_position_embeddings=8192,
    )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_dtype(torch.bfloat16 if device == "cuda" else torch.float32)
    with torch.device(device):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    return model.eval()


def one(name: str, count: int, length: int, batch) -> dict:
    """Profile once in this process."""
    model = load(name)
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, size=(count, length))
    blocks = Blocks(ids, np.full(count, length), None, "tokens", "random")
    said, original = [], passes_module._say_before

    def catch(model, blocks, memory, state, *more):
        said.append((memory.peak(state.batch, length), state.batch))
        original(model, blocks, memory, state, *more)

    passes_module._say_before = catch
    began = time.perf_counter()
    sp.profile_model(model, blocks, batch=batch)
    seconds = time.perf_counter() - began
    if next(model.parameters()).is_cuda:
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"model": name, "batch": said[0][1], "said": said[0][0], "peak": peak, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["demo"])
    parser.add_argument("--blocks", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batch", default="auto")
    parser.add_argument("--out", type=Path, default=RECORDS)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    batch = arguments.batch if arguments.batch == "auto" else int(arguments.batch)
    if arguments.one:
        print(json.dumps(one(arguments.models[0], arguments.blocks, arguments.length, batch)))
        return
    rows = []
    print(f"{'model':28}{'batch':>6}{'said MiB':>10}{'peak MiB':>10}{'ratio':>7}{'seconds':>9}")
    for name in arguments.models:
        options = ["--blocks", str(arguments.blocks), "--length", str(arguments.length)]
        command = [sys.executable, __file__, name, "--one", "--batch", arguments.batch, *options]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        rows.append(row)
        said, peak = row["said"], row["peak"]
        print(
            f"{name:28}{row['batch']:6}{said >> 20:10}{peak >> 20:10}{said / peak:7.2f}{row['seconds']:9.1f}",
            flush=True,
        )
    write_record(
        f"memory_{'gpu' if torch.cuda.is_available() else 'cpu'}",
        "memory said before a profile beside the peak it reached, both passes, fresh processes",
        peak_gib=max(row["peak"] for row in rows) / 2**30,
        folder=arguments.out,
        blocks=arguments.blocks,
        length=arguments.length,
        rows=rows,
    )


if __name__ == "__main__":
    main()
