"""``scarprune plan``: from a profile to the channels that stay."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from scarprune.plan.plan import Plan


@click.command("plan")
@click.argument("profile", type=options.PATH)
@options.sparsity
@click.option("--out", type=options.PATH, required=True, help="The plan, a JSON file.")
@options.planning("scar_prot")
@click.option("--seed", default=0, show_default=True, help="Of a score that draws.")
@options.overwrite
@options.json
@options.quiet
def command(
    profile: Path,
    sparsity: float,
    out: Path,
    seed: int,
    overwrite: bool,
    json_file: str | None,
    **given: Any,
) -> None:
    """Choose the channels that stay, from a PROFILE alone: no model is needed."""
    from scarprune.artifacts import refuse_existing
    from scarprune.cli.answer import Answer
    from scarprune.plan.plan import make_plan
    from scarprune.profile.sums import load_profile

    answer = Answer("plan", json_file, overwrite)
    refuse_existing(out, overwrite)
    plan = make_plan(load_profile(profile), sparsity=sparsity, seed=seed, **given)
    plan.save(out, overwrite=overwrite)
    answer.give(plan.as_json(), lambda console: _show(console, plan, out))


def _show(console: "Console", plan: "Plan", out: Path) -> None:
    from scarprune.cli import show
    from scarprune.cli.answer import facts

    console.print(facts([*show.plan(plan), ("written", str(out))]))
