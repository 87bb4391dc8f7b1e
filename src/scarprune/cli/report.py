"""``scarprune report``: the findings of a folder as one page."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console


@click.command("report")
@click.argument("folder", type=options.PATH, metavar="DIR")
@click.option("--out", type=options.PATH, help="The page [default: DIR/report.html].")
@click.option(
    "--figures",
    type=click.Choice(["svg", "png"]),
    help="Also write every figure into DIR/figures, for papers and talks.",
)
@options.overwrite
@options.json
@options.quiet
def command(
    folder: Path,
    out: Path | None,
    figures: Literal["svg", "png"] | None,
    overwrite: bool,
    json_file: str | None,
) -> None:
    """One self-contained HTML page of the findings in DIR: summary, figures, tables, provenance.

    Reads whichever of findings.json, validation.json, trajectory.json, reproduction.json and sweep.json are
    there.
    """
    from scarprune.cli.answer import Answer
    from scarprune.report.export import write_figures
    from scarprune.report.page import write_page

    answer = Answer("report", json_file, overwrite)
    facts: dict[str, Any] = write_page(folder, out or folder / "report.html", overwrite=overwrite)
    if figures is not None:
        facts["files"] = list(write_figures(folder, figures, overwrite=overwrite)["written"].values())
    answer.give(facts, lambda console: _show(console, facts, folder))


def _show(console: "Console", facts: dict[str, Any], folder: Path) -> None:
    size = f"{facts['bytes'] / 1e6:.1f} MB"
    console.print(f"Written: {facts['page']} ({len(facts['figures'])} figures, {size})")
    if facts.get("files"):
        console.print(f"Written: {len(facts['files'])} files in {folder / 'figures'}")
    if facts["absent"]:
        console.print(f"Not drawn: {', '.join(facts['absent'])}; the page says why.")
