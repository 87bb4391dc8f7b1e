"""``scarprune eval``: perplexity and tasks, of a whole model or under a plan."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from scarprune.pipeline.stages import Evaluation


@click.command("eval")
@options.model
@click.option("--text", help="What to judge on; demo is the built-in evaluation text.")
@click.option(
    "--tasks",
    metavar="NAME[,NAME...]",
    help="Tasks of lm_eval, YAML files or folders of such, or paper: the paper's list.",
)
@click.option("--num-fewshot", type=int, help="Examples before each question [default: the task's own].")
@click.option("--limit", type=int, help="Items of each task, the first ones [default: all].")
@click.option("--plan", type=options.PATH, help="Judge the model as this plan would cut it, too.")
@click.option("--blocks", type=int, help="Blocks of the text to read [default: all].")
@options.batch
@options.compiled
@options.reading
@options.loading
@options.overwrite
@options.json
@options.quiet
def command(
    model: str,
    text: str | None,
    tasks: str | None,
    num_fewshot: int | None,
    limit: int | None,
    plan: Path | None,
    blocks: int | None,
    batch: Any,
    compiled: Any,
    overwrite: bool,
    json_file: str | None,
    **given: Any,
) -> None:
    """Perplexity of MODEL on a text, its accuracy on tasks, or both.

    With a plan, also as the plan would cut it (by masks). Tasks need the extra [eval]. Several GPUs divide
    the blocks of a text: torchrun --nproc-per-node N -m scarprune eval ...
    """
    from scarprune.cli.answer import Answer
    from scarprune.evaluate.tasks import Asking
    from scarprune.pipeline.inputs import Loading, Reading
    from scarprune.pipeline.stages import evaluate

    if text is None and tasks is None:
        raise click.UsageError("Missing option '--text' or '--tasks'.")
    if tasks is None and (num_fewshot is not None or limit is not None):
        raise click.UsageError("--num-fewshot and --limit are about --tasks.")
    answer = Answer("eval", json_file, overwrite)
    asking = None if tasks is None else Asking(tuple(tasks.split(",")), num_fewshot, limit)
    result = evaluate(
        model,
        text,
        tasks=asking,
        plan=plan,
        blocks=blocks,
        batch=batch,
        compiled=compiled,
        reading=options.pick(Reading, given),
        loading=options.pick(Loading, given),
    )
    if result is not None:
        evaluation = result
        answer.give(evaluation.as_json(), lambda console: _show(console, evaluation))


def _show(console: "Console", evaluation: "Evaluation") -> None:
    from scarprune.cli import show
    from scarprune.cli.answer import facts
    from scarprune.cli.words import with_error

    dense, result = evaluation.dense, evaluation.result
    if evaluation.blocks is not None:
        console.print(f"{show.text(evaluation.blocks)}\n")
        named = {"model": result} if dense is None else {"dense": dense, "under the plan": result}
        console.print(
            show.perplexities({k: v.perplexity for k, v in named.items() if v.perplexity is not None})
        )
    if evaluation.excess is not None:
        console.print()
        console.print(facts([("excess", f"{with_error(*evaluation.excess)} nats (paired over blocks)")]))
    if evaluation.asking is not None:
        if evaluation.blocks is not None:
            console.print()
        console.print(show.tasks(result.tasks, None if dense is None else dense.tasks))
        if evaluation.asking.limit is not None:
            console.print(f"\nOnly the first {evaluation.asking.limit} items of each task (--limit).")
