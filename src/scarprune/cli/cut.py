"""``scarprune cut``: apply a plan to a checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from scarprune.cut.report import CutReport
    from scarprune.plan.plan import Plan


@click.command("cut")
@options.model
@click.argument("plan", type=options.PATH)
@click.argument("out", type=options.PATH)
@click.option("--verify", is_flag=True, help="Also reload it in a fresh process and compare logits.")
@options.saving
@options.loading
@options.overwrite
@options.json
@options.quiet
def command(
    model: str,
    plan: Path,
    out: Path,
    verify: bool,
    save_dtype: str | None,
    pad: bool,
    overwrite: bool,
    json_file: str | None,
    **given: Any,
) -> None:
    """Apply PLAN to MODEL and write the smaller checkpoint to the folder OUT.

    A folder is cut shard by shard in little memory, without loading the model; every written tensor is read
    again and compared with its slice of the source, bit for bit.
    """
    from scarprune.cli.answer import Answer
    from scarprune.pipeline.cutting import cut
    from scarprune.pipeline.inputs import Loading
    from scarprune.plan.plan import load_plan

    answer = Answer("cut", json_file, overwrite)
    chosen = load_plan(plan)
    report = cut(
        model,
        chosen,
        out,
        verify=verify,
        save_dtype=save_dtype,
        pad=pad,
        loading=options.pick(Loading, given),
        overwrite=overwrite,
    )
    payload = {"out": str(out), "plan": str(plan), "score": chosen.score, **report.as_json()}
    answer.give(payload, lambda console: _show(console, chosen, report, out))


def _show(console: "Console", plan: "Plan", report: "CutReport", out: Path) -> None:
    from scarprune.cli import show
    from scarprune.cli.answer import facts

    console.print(show.sizes(report))
    console.print(facts([*show.plan(plan), ("verified", show.verified(report)), ("written", str(out))]))
