"""Writes the tables of docs/scaling.md from the formulas and from benchmarks/records: `make docs`.

What stands between <!-- NAME --> and <!-- end --> is replaced; everything else is written by hand.
"""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from scarprune.cli.words import parameters, size
from scarprune.models.shapes import SHAPES
from scarprune.pipeline.forecast import built
from scarprune.profile.size import cross_bytes, file_bytes, sums_bytes
from scarprune.runtime.progress import duration
from scarprune.scaling import formulas
from scarprune.scaling.machine import H100
from scarprune.scaling.placement import Text, place
from scarprune.scaling.sizes import Sizes, sizes_of
from scarprune.scaling.stages import Job, Stage, forecast

SCALING = Path(__file__).with_name("scaling.md")
RECORDS = Path(__file__).parents[1] / "benchmarks" / "records"
NAMES = ("llama-3.2-1b", "llama-3.1-8b", "llama-3.1-70b", "llama-3.1-405b")
TEXT = Text(blocks=128, length=512)
_SECTION = re.compile(r"(<!-- ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def render(text: str) -> str:
    """``text`` with its tables as the formulas and the records make them now."""
    sizes = {name: sizes_of(built(SHAPES[name].config()), itemsize=2) for name in NAMES}
    tables: dict[str, Callable[[], str]] = {
        "sizes": lambda: _sizes(sizes),
        "times": lambda: _times(sizes),
        "stages": lambda: _stages(sizes),
        "checkpoints": lambda: _checkpoints(sizes),
        "memory-limits": lambda: _memory_limits(sizes),
        "time-limits": lambda: _time_limits(sizes),
        "measured-cpu": lambda: _measured("scaling_cpu", "python benchmarks/scaling.py --device cpu"),
        "measured-gpu": lambda: _measured("scaling_gpu", "python benchmarks/scaling.py"),
    }
    return _SECTION.sub(lambda found: f"{found[1]}{tables[found[2]]()}\n{found[3]}", text)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _columns(first: str) -> list[str]:
    return [first, *(name.rpartition("-")[2].upper() for name in NAMES)]


def _record(name: str) -> dict[str, Any] | None:
    path = RECORDS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _profile_seconds(sizes: Sizes, job: Job) -> float:
    """nan where it does not fit."""
    return sum(
        math.nan if stage.seconds is None else stage.seconds for stage in forecast(sizes, job, H100)[:2]
    )


def _count(number: float) -> str:
    exponent = math.floor(math.log10(number))
    return f"{number / 10**exponent:.2f}e{exponent}"


def _sizes(sizes: dict[str, Sizes]) -> str:
    rows: dict[str, Callable[[Sizes], str]] = {
        "parameters": lambda s: parameters(s.cost.parameters),
        "operations forward, a token": lambda s: _count(_forward(s)),
        "operations back, a token": lambda s: _count(
            s.cost.backward_operations(TEXT.length).total / TEXT.length
        ),
        "of pass 2's product, a token": lambda s: _count(formulas.cross_operations(s)),
        "u, s and inputs read, a token": lambda s: size(int(formulas.watched_bytes(s, kernels=True))),
        "of logits, read and written, a token": lambda s: size(int(formulas.loss_bytes(s, backward=True))),
        "weights": lambda s: size(int(s.weight_bytes)),
        "kept for the way back, a token": lambda s: size(int(formulas.saved_bytes(s, kernels=True))),
        "the same, checkpointed": lambda s: size(int(_checkpointed(s))),
        "sums of pass 1": lambda s: size(sums_bytes(s.widths)),
        "sums of pass 2": lambda s: size(cross_bytes(s.widths, s.cores())),
        "profile on disk": lambda s: size(_file(s)),
        "all-reduced once, pass 1": lambda s: size(int(formulas.sums_sent_bytes(s))),
        "all-reduced once, pass 2": lambda s: size(int(formulas.cross_sent_bytes(s))),
        "tensor parallel, both ways, a token": lambda s: size(
            int(formulas.tensor_parallel_bytes(s, backward=True))
        ),
        "streamed, a batch": lambda s: size(int(formulas.streamed_bytes(s))),
        "tokens of a batch that hide it": lambda s: f"{_hidden_link(s):,}",
    }
    return _table(_columns(""), [[name, *map(of, sizes.values())] for name, of in rows.items()])


def _checkpointed(sizes: Sizes) -> float:
    """What grows with the tokens: each layer's input."""
    return sizes.itemsize * sizes.hidden * sizes.layers


def _forward(sizes: Sizes) -> float:
    return sizes.cost.prefill_operations(TEXT.length, every_logit=True).total / TEXT.length


def _operations(sizes: Sizes) -> float:
    return _forward(sizes) + sizes.cost.backward_operations(TEXT.length).total / TEXT.length


def _hidden_link(sizes: Sizes) -> int:
    assert H100.host is not None
    streamed = formulas.streamed_bytes(sizes)
    return formulas.tokens_that_hide_the_link(_operations(sizes), H100.reached, streamed, H100.host)


def _file(sizes: Sizes) -> int:
    return file_bytes(sizes.widths, sizes.cores(), sizes.hidden, sizes.readers == 2)


def _times(sizes: dict[str, Sizes]) -> str:
    cases = ((1, 128), (8, 128), (1024, 128), (1024, 1024))
    rows = []
    for gpus, blocks in cases:
        text = Text(blocks, TEXT.length)
        cells = []
        for of in sizes.values():
            placed = place(of, text, H100, gpus)
            busy = min(blocks, placed.copies) * placed.shards
            shared = f", {placed.shards} GPUs a layer" if placed.shards > 1 else ""
            idle = f", {busy} of {gpus} busy" if busy < gpus else ""
            seconds = _short(_profile_seconds(of, Job(text, gpus)))
            cells.append(f"{seconds} ({placed.way}{shared}{idle})" if placed.fits else seconds)
        rows.append(
            [
                f"{gpus:,} GPUs, {text.tokens:,} tokens" if gpus > 1 else f"1 GPU, {text.tokens:,} tokens",
                *cells,
            ]
        )
    return _table(_columns("profile, both passes"), rows)


def _short(seconds: float) -> str:
    if math.isnan(seconds):
        return "does not fit"
    return duration(seconds) if seconds >= 0.1 else f"{1000 * seconds:.0f} ms"


def _stages(sizes: dict[str, Sizes]) -> str:
    """On one GPU each, whether it fits or not."""
    found = {name: forecast(of, Job(TEXT), H100) for name, of in sizes.items()}
    rows = []
    for position, first in enumerate(found[NAMES[0]]):
        cells = [
            f"{_time_of(stage)}, {size(int(stage.memory_bytes))}"
            + ("" if stage.memory_bytes <= H100.memory_bytes else " (too much)")
            for stage in (stages[position] for stages in found.values())
        ]
        rows.append([first.name, *cells])
    return _table(_columns("1 GPU, 65,536 tokens"), rows)


def _time_of(stage: Stage) -> str:
    if stage.seconds is not None:
        return _short(stage.seconds)
    return "-" if stage.work.disk_bytes else "does not fit"


def _checkpoints(sizes: dict[str, Sizes]) -> str:
    job, report = Job(TEXT, gpus=8), _record("report_cpu_8b")
    rows: dict[str, Callable[[Sizes], str]] = {
        "100 profiles on 8 GPUs": lambda s: _short(100 * _profile_seconds(s, job)),
        "100 checkpoints in bfloat16, on disk": lambda s: size(int(100 * s.weight_bytes)),
        "100 profiles, on disk": lambda s: size(100 * _file(s)),
        "loading 100 checkpoints over 8 links from the CPU's memory": lambda s: duration(
            100 * s.weight_bytes / (8 * (H100.host or 0))
        ),
    }
    if report is not None:
        channels = sizes["llama-3.1-8b"].channels
        rows["`analyze` of 100 profiles, one CPU thread"] = lambda s: duration(
            100 * report["findings_seconds"] * s.channels / channels
        )
    return _table(_columns(""), [[name, *map(of, sizes.values())] for name, of in rows.items()])


def _crossing(sizes: dict[str, Sizes], need: Callable[[Sizes], float], limit: float) -> str:
    """Parameters at which ``need`` reaches ``limit``: a power law between neighbours, the last one beyond."""
    points = [(math.log(of.cost.parameters), math.log(need(of))) for of in sizes.values()]
    wanted = math.log(limit)
    if wanted < points[0][1]:
        return f"below {parameters(next(iter(sizes.values())).cost.parameters)}"
    pairs = list(itertools.pairwise(points))
    (x0, y0), (x1, y1) = next((pair for pair in pairs if wanted <= pair[1][1]), pairs[-1])
    at = math.exp(x0 + (wanted - y0) * (x1 - x0) / (y1 - y0))
    return f"{at / 1e9:,.3g}B" if at < 1e13 else "beyond 10,000B"


def _memory_limits(sizes: dict[str, Sizes]) -> str:
    def stage(position: int) -> Callable[[Sizes], float]:
        return lambda s: forecast(s, Job(TEXT), H100)[position].memory_bytes

    needs: dict[str, Callable[[Sizes], float]] = {
        "`heal`: weights, gradients, Adam, teacher": stage(6),
        "`refit`: weights, states, Gram matrices": stage(5),
        "weights": lambda s: s.weight_bytes,
        "activations of 16,384 tokens, eager": lambda s: 16384 * formulas.saved_bytes(s, kernels=True),
        "the same, checkpointed": lambda s: 16384 * _checkpointed(s),
        "Gram matrices of one site (`ls`)": formulas.gram_bytes,
        "sums of pass 2, m x k": lambda s: cross_bytes(s.widths, s.cores()),
        "sums of pass 1": lambda s: sums_bytes(s.widths),
    }
    rows = [
        [
            name,
            *(_marked(need(of), H100.memory_bytes) for of in sizes.values()),
            _crossing(sizes, need, H100.memory_bytes),
        ]
        for name, need in needs.items()
    ]
    return _table([*_columns("bytes on one GPU"), "80 GB are reached at"], rows)


def _marked(count: float, limit: float) -> str:
    return f"**{size(int(count))}**" if count > limit else size(int(count))


def _time_limits(sizes: dict[str, Sizes]) -> str:
    """Seconds of what is not computing, over the seconds of computing both passes of the same text."""
    gpus = 1024
    text = Text(gpus, TEXT.length)
    measured, report = _record("scaling_cpu"), _record("report_cpu_8b")
    assert H100.host is not None
    assert H100.network is not None
    host, network = H100.host, H100.network

    def computing(of: Sizes, tokens: float) -> float:
        return 2 * tokens * _operations(of) / H100.reached

    def all_reduce(of: Sizes) -> float:
        sent = formulas.sums_sent_bytes(of) + formulas.cross_sent_bytes(of)
        return formulas.all_reduce_bytes(sent, gpus) / network / computing(of, TEXT.length)

    def tensor_parallel(of: Sizes) -> float:
        sent = formulas.all_reduce_bytes(formulas.tensor_parallel_bytes(of, backward=True), 8)
        return sent / (H100.link or math.nan) / (computing(of, 1) / 2 / 8)

    rows: dict[str, Callable[[Sizes], float]] = {
        "streamed layers over PCIe, batches of 16,384 tokens": lambda of: (
            2 * formulas.streamed_bytes(of) / host / computing(of, 16384)
        ),
        "the same, batches of 2,048 tokens": lambda of: (
            2 * formulas.streamed_bytes(of) / host / computing(of, 2048)
        ),
        "tensor parallel over 8 GPUs of a host (NVLink)": tensor_parallel,
        "all-reduce over 1,024 GPUs, a block of 512 tokens each": all_reduce,
    }
    if measured is not None:
        rate = measured["tokenizing"]["tokens_per_second"]
        rows["tokenizing in one process, one GPU"] = lambda of: (
            TEXT.tokens / rate / computing(of, TEXT.tokens)
        )
        rows["tokenizing in one process, 1,024 GPUs"] = lambda of: (
            text.tokens / rate / computing(of, TEXT.length)
        )
    if report is not None:
        each = report["findings_seconds"] / sizes["llama-3.1-8b"].channels
        rows["`analyze` on one CPU thread, profile of 65,536 tokens on one GPU"] = lambda of: (
            each * of.channels / computing(of, TEXT.tokens)
        )
    return _table(
        _columns("seconds over those of computing"),
        [[name, *(_share(of(s)) for s in sizes.values())] for name, of in rows.items()],
    )


def _share(share: float) -> str:
    shown = f"{share:,.1f}" if share >= 10 else f"{share:.2g}"
    return f"**{shown}**" if share > 1 else shown


def _measured(name: str, command: str) -> str:
    record = _record(name)
    if record is None:
        return f"Not measured yet: `{command}` writes `benchmarks/records/{name}.json`."
    rate = record["machine"]["operations_per_second"] / 1e12
    head = (
        f"`{command}`, {record['date']}: {record['device']}, {rate:.3g} TFLOP/s, "
        f"torch {record['versions']['torch']}; "
        f"{record['clock']} time. Expected: at {record['machine']['efficiency']:.0%} of that rate.\n\n"
    )
    columns = [
        "shape",
        "tokens",
        "length",
        "passes",
        "seconds",
        "measured / expected",
        "tokens/s",
        "share of ceiling",
        "peak / expected",
    ]
    rows = [
        [
            row["shape"],
            f"{row['tokens']:,}",
            f"{row['length']:,}",
            str(row["passes"]),
            f"{row['seconds']:.2f}",
            f"{row['seconds'] / row['said_seconds']:.2f}",
            f"{row['tokens_per_second']:,.0f}",
            f"{row['share_of_ceiling']:.2f}",
            "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / row['said_peak_bytes']:.2f}",
        ]
        for row in record["rows"]
    ]
    lines = [
        [
            what,
            str(fit["points"]),
            _slope(fit["slope"]),
            f"{fit['intercept']:.2f} s",
            f"{fit['r_squared']:.5f}",
            f"{fit['largest_residual']:.2f} s",
        ]
        for what, fit in record["fits"].items()
    ]
    fitted = _table(["straight line", "points", "slope", "intercept", "R²", "largest residual"], lines)
    return f"{head}{_table(columns, rows)}\n\n{fitted}"


def _slope(slope: float) -> str:
    return f"{_count(slope)} s each"


if __name__ == "__main__":
    SCALING.write_text(render(SCALING.read_text(encoding="utf-8")), encoding="utf-8")
