"""``scarprune analyze``: what the core is, what it overlaps with, and how far it can be believed."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console


@click.command("analyze")
@click.argument("profiles", nargs=-1, required=True, type=options.PATH, metavar="PROFILE...")
@click.option(
    "--out", type=options.PATH, help="Folder for findings.json and core.csv; `report` makes a page of it."
)
@click.option("--model", help="The profiled model, for what needs weights: controls of the halo, tokens.")
@click.option("--text", help="What to read with --model [default: what the profile was measured on].")
@click.option("--blocks", type=int, help="Blocks of --text to read [default: as many as were profiled].")
@click.option("--flips", default=200, show_default=True, help="Sign flips of the null distribution.")
@click.option("--random-cores", default=20, show_default=True, help="Random cores to compare the core with.")
@options.batch
@options.reading
@options.loading
@options.resume
@options.overwrite
@options.json
@options.quiet
def command(
    profiles: tuple[Path, ...],
    out: Path | None,
    overwrite: bool,
    json_file: str | None,
    **given: Any,
) -> None:
    """Findings of a PROFILE: concentration, other explanations, stability, halo; with intervals.

    More profiles of the same model (other text, seed, length or labels) show how far they agree.
    """
    from scarprune.artifacts import partial_path
    from scarprune.cli.answer import Answer
    from scarprune.cli.interrupt import resumable
    from scarprune.pipeline.analyze import FINDINGS, analyze
    from scarprune.pipeline.inputs import Loading, Reading

    answer = Answer("findings", json_file, overwrite)
    with resumable(partial_path((out or Path()) / FINDINGS)):
        findings = analyze(
            profiles,
            out,
            overwrite=overwrite,
            reading=options.pick(Reading, given),
            loading=options.pick(Loading, given),
            **given,
        )
    answer.give(findings, lambda console: _show(console, findings, out))


def _show(console: "Console", findings: dict[str, Any], out: Path | None) -> None:
    from scarprune.cli.answer import table

    for statement in findings["summary"]["statements"]:
        console.print(statement["text"])
    console.print()
    console.print(table(("site", "core share", "95% interval", "Jaccard with activation"), _rows(findings)))
    for part, reason in findings["missing"].items():
        console.print(f"\nNot computed: {part.replace('_', ' ')}, which {reason}.")
    if out is not None:
        console.print(f"\nWritten: {out}/findings.json, {out}/core.csv (scarprune report {out})")


def _rows(findings: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    from scarprune.cli.words import percent

    shares = next(iter(findings["concentration"]["labels"].values()))["sites"]
    activation = findings["explanations"]["scores"].get("activation_power", {"sites": [None] * len(shares)})
    rows = []
    for entry, other in zip(shares, activation["sites"], strict=True):
        share = entry["core_share"]
        known = share["value"] is not None
        interval = "" if share["low"] is None else f"{percent(share['low'])} to {percent(share['high'])}"
        jaccard = other["jaccard"] if other else None
        shown = "" if jaccard is None else f"{jaccard:.2f}"
        rows.append((entry["name"], percent(share["value"]) if known else "no loss", interval, shown))
    return rows
