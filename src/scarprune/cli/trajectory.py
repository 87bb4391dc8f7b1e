"""``scarprune trajectory``: how the core came to be over a model's checkpoints."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console


@click.command("trajectory")
@click.argument("checkpoints", nargs=-1, metavar="CHECKPOINT...")
@click.option("--out", type=options.PATH, required=True, help="Folder for trajectory.json and profiles/.")
@click.option("--preset", metavar="olmo-2-7b", help="Ten revisions of a public training run.")
@click.option("--text", help="What to measure on [default: the built-in calibration text].")
@click.option("--free-downloads", is_flag=True, help="Drop each revision that was downloaded once measured.")
@options.measuring
@options.reading
@options.loading
@options.overwrite
@options.json
@options.quiet
def command(
    checkpoints: tuple[str, ...],
    out: Path,
    preset: str | None,
    text: str | None,
    free_downloads: bool,
    overwrite: bool,
    json_file: str | None,
    **given: Any,
) -> None:
    """Concentration, overlap with the final core, and births of its channels over CHECKPOINTs.

    A CHECKPOINT is a model folder, a profile, a folder of either, or a hub id with its revision
    (id@revision).
    Profiles are kept in OUT/profiles, so that the same command goes on where it was interrupted.
    """
    from scarprune.cli.answer import Answer
    from scarprune.pipeline.inputs import Loading, Measuring, Reading
    from scarprune.pipeline.trajectory import checkpoints_of, preset_checkpoints, trajectory

    if bool(checkpoints) == bool(preset):
        raise click.UsageError("Name checkpoints or a --preset, one of the two.")
    answer = Answer("trajectory", json_file, overwrite)
    found = trajectory(
        preset_checkpoints(preset) if preset else checkpoints_of(checkpoints),
        out,
        text=text,
        reading=options.pick(Reading, given),
        loading=options.pick(Loading, given),
        measuring=Measuring(given["blocks"], given["batch"], compiled=given["compiled"], redundancy=False),
        free_downloads=free_downloads,
        overwrite=overwrite,
    )
    answer.give(found, lambda console: _show(console, found, out))


def _show(console: "Console", found: dict[str, Any], out: Path) -> None:
    from scarprune.cli.answer import table
    from scarprune.cli.words import percent

    rows = []
    for one, count in zip(found["checkpoints"], found["births"]["counts"], strict=True):
        share, rank = one["core_share"]["median"], one["spearman_with_final"]["median"]
        rows.append(
            (
                one["name"],
                "no loss" if share is None else percent(share),
                f"{one['jaccard_with_final']['median']:.2f}",
                "" if rank is None else f"{rank:.2f}",
                str(count["born"]),
            )
        )
    columns = ("checkpoint", "core share", "Jaccard with final", "rank correlation", "born")
    console.print(table(columns, rows))
    console.print(f"\nWritten: {out}/trajectory.json")
