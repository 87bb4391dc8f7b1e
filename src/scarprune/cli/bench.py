"""``scarprune bench``: sizes, speed and memory of a model, and of a smaller one beside it."""

from typing import TYPE_CHECKING, Any

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from scarprune.pipeline.bench import Bench


@click.command("bench")
@options.model
@click.argument("small", required=False)
@click.option("--batch", default=1, show_default=True, help="Texts at once.")
@click.option("--length", default=512, show_default=True, help="Tokens of a text, read at once (prefill).")
@click.option("--new", default=32, show_default=True, help="Tokens then added one by one (decode).")
@click.option("--rounds", default=5, show_default=True, help="How often, the models in turn.")
@options.loading
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
    overwrite: bool,
    json_file: str | None,
    **given: Any,
) -> None:
    """Parameters, bytes, tokens per second and memory of MODEL, beside those of SMALL.

    The two are timed in turn on the same device and shapes, as stock transformers runs them. Says what keeps
    a smaller model from being faster, and which kernels and formats its width is ready for.
    """
    from scarprune.cli.answer import Answer
    from scarprune.evaluate.speed import Load
    from scarprune.pipeline.bench import bench
    from scarprune.pipeline.inputs import Loading

    answer = Answer("bench", json_file, overwrite)
    load = Load(batch=batch, length=length, new=new, rounds=rounds)
    result = bench(model, small, loading=options.pick(Loading, given), load=load)
    answer.give(result.as_json(), lambda console: _show(console, result))


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
