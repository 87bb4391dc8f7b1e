"""``scarprune bench``: sizes, speed and memory of a model, and of a smaller one beside it, or of the work."""

from typing import TYPE_CHECKING, Any

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from scarprune.cli.answer import Answer
    from scarprune.pipeline.bench import Bench
    from scarprune.pipeline.forecast import Forecast
    from scarprune.pipeline.inputs import Loading
    from scarprune.scaling.stages import Work


@click.command("bench")
@options.model
@click.argument("small", required=False)
@click.option("--batch", default=1, show_default=True, help="Texts at once.")
@click.option("--length", default=512, show_default=True, help="Tokens of a text, read at once (prefill).")
@click.option("--new", default=32, show_default=True, help="Tokens then added one by one (decode).")
@click.option("--rounds", default=5, show_default=True, help="How often, the models in turn.")
@options.loading
@click.option("--dry-run", is_flag=True, help="Measure no model: say what the work on it will take.")
@click.option("--blocks", type=int, help="Of a dry run: blocks of text [default: 128].")
@click.option("--gpus", type=int, help="Of a dry run: how many [default: 1].")
@click.option("--sparsity", type=float, help="Of a dry run: fraction of channels to remove [default: 0.5].")
@click.option("--tflops", type=float, help="Of a dry run: TFLOP/s of matrix products [default: measured].")
@click.option("--bandwidth", type=float, help="Of a dry run: GB/s of the memory [default: measured].")
@click.option("--disk", type=float, help="Of a dry run: GB/s of the disk.")
@options.overwrite
@options.json
@options.quiet
def command(
    model: str,
    small: str | None,
    batch: int,
    length: int,
    new: int,
    rounds: int,
    dry_run: bool,
    overwrite: bool,
    json_file: str | None,
    **given: Any,
) -> None:
    """Parameters, bytes, tokens per second and memory of MODEL, beside those of SMALL.

    The two are timed in turn on the same device and shapes, as stock transformers runs them. Says what keeps
    a smaller model from being faster, and which kernels and formats its width is ready for.

    With --dry-run MODEL may also be a published shape (llama-3.1-8b, -70b, -405b ...), and of a model its
    config is enough: operations, bytes, memory and expected time of each stage, on the device at hand, or on
    an H100 where there is no GPU. The formulas: docs/scaling.md.
    """
    from scarprune.cli.answer import Answer
    from scarprune.evaluate.speed import Load
    from scarprune.pipeline.bench import bench
    from scarprune.pipeline.inputs import Loading

    answer = Answer("bench", json_file, overwrite)
    asked = {name: given.pop(name) for name in ("blocks", "gpus", "sparsity", "tflops", "bandwidth", "disk")}
    if dry_run:
        _foresee(answer, model, small, length, options.pick(Loading, given), asked)
        return
    _refuse_without_dry_run(asked)
    load = Load(batch=batch, length=length, new=new, rounds=rounds)
    result = bench(model, small, loading=options.pick(Loading, given), load=load)
    answer.give(result.as_json(), lambda console: _show(console, result))


def _refuse_without_dry_run(asked: dict[str, Any]) -> None:
    from scarprune.errors import ArgumentError

    wrong = next((name for name, value in asked.items() if value is not None), None)
    if wrong is not None:
        raise ArgumentError(f"--{wrong} belongs to a dry run, and this is none.", hint="Add --dry-run.")


def _foresee(
    answer: "Answer", model: str, small: str | None, length: int, loading: "Loading", asked: dict[str, Any]
) -> None:
    from scarprune.errors import ArgumentError
    from scarprune.pipeline.forecast import Rates, foresee
    from scarprune.scaling.placement import Text
    from scarprune.scaling.stages import Job

    if small is not None:
        raise ArgumentError(f"A dry run takes one model, and {small} is a second.", hint="Use --sparsity.")
    known = {name: value for name, value in asked.items() if value is not None}
    text = Text(known.pop("blocks", 128), length)
    rates = options.pick(Rates, {**dict.fromkeys(("tflops", "bandwidth", "disk")), **known})
    job = Job(text, **{name: known[name] for name in ("gpus", "sparsity") if name in known})
    result = foresee(model, job, loading=loading, rates=rates)
    answer.give(result.as_json(), lambda console: _show_forecast(console, result))


def _show_forecast(console: "Console", result: "Forecast") -> None:
    from scarprune.cli.answer import facts, table
    from scarprune.cli.words import parameters, size
    from scarprune.runtime.progress import duration

    sizes, job, machine = result.sizes, result.job, result.machine
    gpus = f"{job.gpus} x " if job.gpus > 1 else ""
    room, weights = machine.memory_bytes, size(int(sizes.weight_bytes))
    console.print(
        facts(
            [
                ("model", f"{parameters(sizes.cost.parameters)}, {result.dtype}, {weights}"),
                ("text", f"{job.text.blocks:,} blocks of {job.text.length:,} tokens: {job.text.tokens:,}"),
                (
                    "on",
                    f"{gpus}{machine.name}: {machine.operations_per_second / 1e12:,.3g} TFLOP/s, of which "
                    f"{machine.efficiency:.0%} are expected; {machine.bytes_per_second / 1e9:,.0f} GB/s",
                ),
                ("placed", _placed(result)),
                ("profile", f"{size(result.profile_bytes)} on disk"),
            ]
        )
    )
    console.print()
    rows = [
        [
            stage.name,
            _power(stage.work.operations + stage.work.float32 + stage.work.float64),
            size(int(stage.work.moved_bytes)),
            size(int(stage.memory_bytes)) + ("" if stage.memory_bytes <= room else " (too much)"),
            _sent(stage.work),
            str(stage.gpus or "-"),
            "not known" if stage.seconds is None else duration(stage.seconds),
        ]
        for stage in result.stages
    ]
    console.print(table(("of one GPU", "operations", "moved", "memory", "sent", "GPUs", "time"), rows))
    for reason in dict.fromkeys(f"{s.name}: {s.reason}" for s in result.stages if s.reason):
        console.print(f"\n{reason}")


def _placed(result: "Forecast") -> str:
    """How the model lies, in words."""
    placed = result.placement
    ways = {
        "resident": "all weights and activations on the device",
        "checkpointed": "each layer keeps its input and is computed again on the way back",
        "streamed": "layers come over the link from the CPU's memory, twice for each batch",
    }
    shared = f"; {placed.shards} GPUs share each layer" if placed.shards > 1 else ""
    copies = f"; {placed.copies} copies share the blocks" if placed.copies > 1 else ""
    return f"{ways[placed.way]}; {placed.batch} blocks at once{shared}{copies}"


def _sent(work: "Work") -> str:
    from scarprune.cli.words import size

    count = int(work.linked_bytes + work.network_bytes)
    return size(count) if count else "-"


def _power(count: float) -> str:
    return f"{count:.2g}" if count else "-"


def _show(console: "Console", result: "Bench") -> None:
    from scarprune.cli import show
    from scarprune.cli.answer import facts

    load = result.timed[0].load
    console.print(
        f"{result.facts['device']}, {result.described[0]['dtype']}; {load.batch} x {load.length} tokens "
        f"read, {load.new} added; medians of {load.rounds} rounds\n"
    )
    console.print(_table(result))
    console.print()
    for sentence in (*result.verdicts, *result.reasons):
        console.print(f"{sentence}\n")
    console.print(facts(show.ready(result.readiness)))


def _table(result: "Bench") -> "Table":
    from scarprune.cli.answer import table
    from scarprune.cli.words import change, parameters, size
    from scarprune.evaluate.explain import PHASES, ratio

    timed = result.timed
    numbers = [t.cost.parameters for t in timed]
    weights = [int(t.cost.weight_bytes.total) for t in timed]
    peaks = [t.speed.peak_bytes for t in timed]
    rows = [
        ["parameters", *map(parameters, numbers), change(numbers[0], numbers[-1])],
        ["weights", *map(size, weights), change(weights[0], weights[-1])],
        ["peak memory", *("not measured" if peak is None else size(peak) for peak in peaks), ""],
    ]
    for phase in PHASES:
        rates, paired = [t.rate(phase) for t in timed], ratio(timed[0].speed, timed[-1].speed, phase)
        rows += [
            [f"{phase}, tokens/s", *map(_rate, rates), f"x {paired.median:.2f}"],
            ["  share of the device's rate", *(f"{t.share_of_ceiling(phase):.0%}" for t in timed), ""],
            ["  feed-forward share of it", *(f"{t.work(phase).ffn_share:.0%}" for t in timed), ""],
        ]
    if len(timed) == 1:
        return table(("", "model"), [row[:2] for row in rows])
    return table(("", "model", "small", ""), rows)


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
