"""Time and memory of the cut from folder to folder, on a random checkpoint of a billion parameters.

    python benchmarks/cut_stream.py [--folder DIR] [--shard-mb 200] [--sparsity 0.5] [--repeats 3]

Copying the source's files one by one is the disk's copy speed; each way ends with its bytes on the disk, and
each begins with the source out of the page cache. The cut runs in a fresh process, whose peak RSS counts.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from record import RECORDS, write_record
from scarprune.cut.tensorfile import write_header
from scarprune.models.checkpoint import Stored
from scarprune.models.fingerprint import fingerprint_folder
from scarprune.plan.plan import Plan, PlannedSite

HIDDEN, WIDTH, LAYERS, HEADS, KV_HEADS, VOCABULARY = 2048, 8192, 16, 32, 8, 32000
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": HIDDEN,
    "intermediate_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "vocab_size": VOCABULARY,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
CUT = """
import json, re, resource, sys, time
from pathlib import Path
from scarprune.cut.stream import cut_folder
from scarprune.plan.plan import load_plan
source, plan, out = sys.argv[1:]
plan = load_plan(plan)
begin = time.perf_counter()
report = cut_folder(source, plan, out)
seconds = time.perf_counter() - begin
status = Path("/proc/self/status")  # unlike ru_maxrss its peak does not count what the parent process held
peak = int(re.search(r"VmHWM:\\s*(\\d+)", status.read_text())[1]) if status.exists() else (
    resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(json.dumps({"seconds": seconds, "peak_mib": peak / 2**10, **report.as_json()}))
"""


def shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the checkpoint."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN)}
    kv = HIDDEN // HEADS * KV_HEADS
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        for name, rows in {"q": HIDDEN, "k": kv, "v": kv, "o": HIDDEN}.items():
            found[f"{layer}.self_attn.{name}_proj.weight"] = (rows, HIDDEN)
        found |= {f"{layer}.mlp.{name}_proj.weight": (WIDTH, HIDDEN) for name in ("gate", "up")}
        found[f"{layer}.mlp.down_proj.weight"] = (HIDDEN, WIDTH)
        found |= {f"{layer}.{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
    return {**found, "model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCABULARY, HIDDEN)}


def make_checkpoint(folder: Path, shard_bytes: int) -> None:
    """Random bfloat16 weights in shards of at most ``shard_bytes``."""
    groups: list[list[Stored]] = [[]]
    for name, shape in shapes().items():
        tensor = Stored(name, "BF16", shape, folder, 0)
        if groups[-1] and sum(t.nbytes for t in groups[-1]) + tensor.nbytes > shard_bytes:
            groups.append([])
        groups[-1].append(tensor)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2))
    rng = np.random.default_rng(0)
    weight_map = {}
    for i, group in enumerate(groups, 1):
        path = folder / f"model-{i:05d}-of-{len(groups):05d}.safetensors"
        weight_map.update({tensor.name: path.name for tensor in group})
        with path.open("wb") as file:
            write_header(file, group, {"format": "pt"})
            for tensor in group:
                values = rng.standard_normal(tensor.items, dtype=np.float32) * np.float32(0.02)
                file.write((values.view(np.uint32) >> 16).astype(np.uint16).data)
    total = sum(tensor.nbytes for group in groups for tensor in group)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def make_plan(folder: Path, sparsity: float) -> Plan:
    """Random channels of every site."""
    rng = np.random.default_rng(1)
    sites = []
    for i in range(LAYERS):
        keep = np.sort(rng.permutation(WIDTH)[: WIDTH - int(sparsity * WIDTH)]).astype(np.int64)
        sites.append(PlannedSite(f"model.layers.{i}.mlp.down_proj", i, WIDTH, keep, keep[:1]))
    return Plan(tuple(sites), "random", sparsity, fingerprint_folder(folder))


def drop_from_cache(folder: Path) -> None:
    """Have the next reader read from the disk."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def copy_seconds(source: Path, out: Path) -> float:
    """Time to copy the files of ``source`` and to have them on the disk."""
    begin = time.perf_counter()
    out.mkdir()
    for path in sorted(source.iterdir()):
        shutil.copyfile(path, out / path.name)
        with (out / path.name).open("rb") as file:
            os.fsync(file.fileno())
    return time.perf_counter() - begin


def cut(source: Path, plan: Path, out: Path) -> dict[str, Any]:
    """Cut in a fresh process; its time without the interpreter's start, and its peak RSS."""
    command = [sys.executable, "-c", CUT, str(source), str(plan), str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(scratch: Path, shard_bytes: int, sparsity: float, repeats: int) -> dict[str, Any]:
    """Copy and cut in turns; medians of the times, the largest of the peaks."""
    source, plan, out = scratch / "source", scratch / "plan.json", scratch / "out"
    make_checkpoint(source, shard_bytes)
    make_plan(source, sparsity).save(plan)
    size = sum(path.stat().st_size for path in source.iterdir())
    copies, cuts = [], []
    for _ in range(repeats):
        drop_from_cache(source)
        copies.append(copy_seconds(source, out))
        shutil.rmtree(out)
        drop_from_cache(source)
        cuts.append(cut(source, plan, out))
        shutil.rmtree(out)
    copying, cutting = float(np.median(copies)), float(np.median([c["seconds"] for c in cuts]))
    return {
        "parameters": cuts[0]["parameters_before"],
        "source_bytes": size,
        "shards": sum(path.suffix == ".safetensors" for path in source.iterdir()),
        "shard_bytes": shard_bytes,
        "sparsity": sparsity,
        "copy_seconds": copies,
        "cut_seconds": [c["seconds"] for c in cuts],
        "copy_mb_per_second": size / 1e6 / copying,
        "cut_mb_per_second": size / 1e6 / cutting,
        "share_of_copy_speed": copying / cutting,
        "peak_rss_mib": max(c["peak_mib"] for c in cuts),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="where to work; the disk that is measured")
    parser.add_argument("--shard-mb", type=int, default=200)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RECORDS)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        found = measure(Path(scratch), arguments.shard_mb * 10**6, arguments.sparsity, arguments.repeats)
    rows = [
        ("parameters", f"{found['parameters'] / 1e9:.2f} billion in {found['shards']} files"),
        ("copy", f"{found['copy_mb_per_second']:.0f} MB/s of source"),
        ("cut, read again and compared", f"{found['cut_mb_per_second']:.0f} MB/s of source"),
        ("share of copy speed", f"{found['share_of_copy_speed']:.2f}"),
        ("peak RSS", f"{found['peak_rss_mib']:.0f} MiB"),
    ]
    for name, value in rows:
        print(f"{name:32} {value}")
    write_record(
        "cut_stream",
        "cut from folder to folder, a random billion parameters in bfloat16",
        share_of_ceiling=found["share_of_copy_speed"],
        peak_gib=found["peak_rss_mib"] / 2**10,
        folder=arguments.out,
        load_average=os.getloadavg()[0],
        **found,
    )


if __name__ == "__main__":
    main()
