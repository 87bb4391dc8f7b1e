"""``scarprune prune``: the main job in one line."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from scarprune.pipeline.prune import Pruned


@click.command("prune")
@options.model
@click.argument("out", type=options.PATH)
@options.sparsity
@click.option("--text", help="What to measure on [default: the built-in calibration text].")
@click.option("--profile", type=options.PATH, help="A profile of the same weights, instead of measuring.")
@click.option(
    "--eval", "evaluation", metavar="TEXT", help="What to judge on [default: text not measured on]."
)
@click.option(
    "--eval-blocks",
    "evaluation_blocks",
    type=int,
    help="How many blocks to judge on [default: all of --eval, else up to 64].",
)
@options.planning("fisher_activation")
@options.compensating
@options.saving
@options.measuring
@options.memory
@options.reading
@options.loading
@options.resume
@options.overwrite
@options.json
@options.quiet
def command(
    model: str,
    out: Path,
    sparsity: float,
    text: str | None,
    profile: Path | None,
    evaluation: str | None,
    evaluation_blocks: int | None,
    save_dtype: str | None,
    pad: bool,
    blocks: int | None,
    batch: Any,
    compiled: Any,
    memory: Any,
    resume: bool,
    overwrite: bool,
    json_file: str | None,
    **given: Any,
) -> None:
    """Make a smaller checkpoint of MODEL in the folder OUT.

    Profiles, plans, cuts, saves, verifies by a reload in a fresh process, and tells the perplexity before and
    after.
    """
    from scarprune.artifacts import partial_path
    from scarprune.cli.answer import Answer
    from scarprune.cli.interrupt import resumable
    from scarprune.pipeline.inputs import Compensating, Loading, Measuring, Planning, Reading
    from scarprune.pipeline.prune import prune

    answer = Answer("prune", json_file, overwrite)
    with resumable(partial_path(out)):
        result = prune(
            model,
            out,
            sparsity,
            text=text,
            profile=profile,
            evaluation=evaluation,
            evaluation_blocks=evaluation_blocks,
            measuring=Measuring(blocks=blocks, batch=batch, compiled=compiled, memory=memory),
            compensating=options.pick(Compensating, given),
            planning=options.pick(Planning, given),
            reading=options.pick(Reading, given),
            loading=options.pick(Loading, given),
            save_dtype=save_dtype,
            pad=pad,
            resume=resume,
            overwrite=overwrite,
        )
    answer.give(result.as_json(), lambda console: _show(console, result))


def _show(console: "Console", result: "Pruned") -> None:
    from scarprune.cli import show
    from scarprune.cli.answer import facts
    from scarprune.cli.words import percent, with_error

    blocks, overlap = result.texts.evaluation, result.texts.overlap
    console.print(show.sizes(result.report))
    console.print(f"\n{show.text(blocks)}\n")
    console.print(show.perplexities({"dense": result.dense, "pruned": result.pruned}))
    rows = [
        ("excess", f"{with_error(*result.excess)} nats (paired over blocks)"),
        *show.plan(result.plan),
        *show.compensation(result.report),
        *([("own text", f"{result.own_text:,} blocks more, by the dense model")] if result.own_text else []),
        ("verified", show.verified(result.report)),
        ("written", str(result.out)),
    ]
    if overlap is not None:
        rows.insert(
            1, ("overlap", f"{percent(overlap)} of the judged 13-grams of tokens are in the measured text")
        )
    console.print()
    console.print(facts(rows))
