"""``scarprune families``: which architectures are supported."""

from typing import TYPE_CHECKING, Any

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from scarprune.models.family import Family

_KINDS = {
    "gated": "gated",
    "fused": "gated, fused",
    "plain": "plain",
    "conv1d": "plain, transposed",
}


@click.command("families")
@options.overwrite
@options.json
@options.quiet
def command(overwrite: bool, json_file: str | None) -> None:
    """List the architectures, and whether a smaller checkpoint of each can be saved."""
    from scarprune.cli.answer import Answer
    from scarprune.models.family import families

    known = families()
    answer = Answer("families", json_file, overwrite)
    answer.give({"families": [_as_json(family) for family in known]}, lambda console: _show(console, known))


def _as_json(family: "Family") -> dict[str, Any]:
    return {
        "name": family.name,
        "description": family.description,
        "model_types": list(family.model_types),
        "kind": family.kind,
        "width_key": family.width_key,
        "cut": family.width_fixed is None,
        "why_not": family.width_fixed,
    }


def _show(console: "Console", known: "list[Family]") -> None:
    from scarprune.cli.answer import table

    rows = [
        (f.name, f.description, _KINDS[f.kind], f.width_key, "yes" if f.width_fixed is None else "no")
        for f in known
    ]
    console.print(table(("family", "models", "feed-forward", "width in config", "cut"), rows, left=5))
    for family in known:
        if family.width_fixed is not None:
            console.print(f"{family.name}: no cut, since {family.width_fixed}")
    console.print(
        "Other architectures are found by the structure of their feed-forward networks, where it is known."
    )
    console.print("Mixtures of experts are refused.")
