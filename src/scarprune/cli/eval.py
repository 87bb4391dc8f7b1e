"""``scarprune eval``: perplexity, of a whole model or under a plan."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from scarprune.pipeline.stages import Evaluation


@click.command("eval")
@options.model
@click.option("--text", required=True, help="What to judge on; demo is the built-in evaluation text.")
@click.option("--plan", type=options.PATH, help="Judge the model as this plan would cut it, too.")
@click.option("--blocks", type=int, help="Blocks of the text to read [default: all].")
@options.batch
@options.reading
@options.loading
@options.overwrite
@options.json
@options.quiet
def command(
    model: str,
    text: str,
    plan: Path | None,
    blocks: int | None,
    batch: Any,
    overwrite: bool,
    json_file: str | None,
    **given: Any,
) -> None:
    """Perplexity of MODEL on a text; with a plan, also as the plan would cut it (by masks)."""
    from scarprune.cli.answer import Answer
    from scarprune.pipeline.inputs import Loading, Reading
    from scarprune.pipeline.stages import evaluate

    answer = Answer("eval", json_file, overwrite)
    evaluation = evaluate(
        model,
        text,
        plan=plan,
        blocks=blocks,
        batch=batch,
        reading=options.pick(Reading, given),
        loading=options.pick(Loading, given),
    )
    answer.give(evaluation.as_json(), lambda console: _show(console, evaluation))


def _show(console: "Console", evaluation: "Evaluation") -> None:
    from scarprune.cli import show
    from scarprune.cli.answer import facts
    from scarprune.cli.words import with_error

    console.print(f"{show.text(evaluation.blocks)}\n")
    if evaluation.dense is None or evaluation.excess is None:
        console.print(show.perplexities({"model": evaluation.result}))
        return
    console.print(show.perplexities({"dense": evaluation.dense, "under the plan": evaluation.result}))
    console.print()
    console.print(facts([("excess", f"{with_error(*evaluation.excess)} nats (paired over blocks)")]))
