"""``scarprune scores``: what channels can be ranked by."""

from typing import TYPE_CHECKING, Any

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from scarprune.scores.score import Score


@click.command("scores")
@options.overwrite
@options.json
@options.quiet
def command(overwrite: bool, json_file: str | None) -> None:
    """List the scores: name, formula, unit, source, what they need."""
    from scarprune.cli.answer import Answer
    from scarprune.scores.score import scores

    known = scores()
    answer = Answer("scores", json_file, overwrite)
    answer.give({"scores": [_as_json(score) for score in known]}, lambda console: _show(console, known))


def _as_json(score: "Score") -> dict[str, Any]:
    return {
        "name": score.name,
        "aliases": list(score.aliases),
        "formula": score.formula,
        "unit": score.unit,
        "source": score.source,
        "needs": list(score.needs),
        "labels": score.labels,
        "keeps_core": score.keeps_core,
    }


def _show(console: "Console", known: "list[Score]") -> None:
    console.print("Of each channel i of a site; high means keep. q = u * dL/du; N targets, B blocks;")
    console.print("v_i is the column of the down projection that channel i writes.\n")
    for score in known:
        console.print(" = ".join((score.name, *score.aliases)), style="bold")
        console.print(f"    formula  {score.formula}", soft_wrap=True)
        if score.unit:
            console.print(f"    unit     {score.unit}", soft_wrap=True)
        console.print(f"    source   {score.source}", soft_wrap=True)
        console.print(f"    needs    {_needs(score)}", soft_wrap=True)


def _needs(score: "Score") -> str:
    from scarprune.profile.sums import extra_of

    needs = ", ".join(score.needs) or "nothing measured"
    options = ["--labels model or both"] if score.labels == "model" else []
    options += sorted({f"--extra {extra}" for name in score.needs if (extra := extra_of(name))})
    return f"{needs} ({', '.join(options)})" if options else needs
