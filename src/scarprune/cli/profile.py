"""``scarprune profile``: the measuring alone."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from scarprune.profile.sums import Profile


@click.command("profile")
@options.model
@click.option("--text", help="What to measure on [default: the built-in calibration text].")
@click.option("--out", type=options.PATH, required=True, help="The profile, a .safetensors file.")
@options.measuring
@options.memory
@options.labels
@options.extras
@options.reading
@options.loading
@options.spreading
@options.resume
@options.overwrite
@options.json
@options.quiet
def command(
    model: str,
    text: str | None,
    out: Path,
    resume: bool,
    overwrite: bool,
    json_file: str | None,
    **given: Any,
) -> None:
    """Measure every feed-forward channel of MODEL on a text: sums from which all scores follow.

    Several GPUs: torchrun --nproc-per-node N -m scarprune profile ... divides the blocks between them; with
    --tp, so many of them hold one copy of the model.
    """
    from scarprune.artifacts import partial_path
    from scarprune.cli.answer import Answer
    from scarprune.cli.interrupt import resumable
    from scarprune.pipeline.inputs import Loading, Measuring, Reading, Spreading
    from scarprune.pipeline.stages import profile

    answer = Answer("profile-summary", json_file, overwrite)
    with resumable(partial_path(out)):
        measured = profile(
            model,
            text,
            out,
            measuring=options.pick(Measuring, given),
            reading=options.pick(Reading, given),
            loading=options.pick(Loading, given),
            spreading=options.pick(Spreading, given),
            resume=resume,
            overwrite=overwrite,
        )
    if measured is not None:
        found = measured
        answer.give(_as_json(found, out), lambda console: _show(console, found, out))


def _as_json(profile: "Profile", out: Path) -> dict[str, Any]:
    from scarprune.pipeline.stages import core_shares

    shares = core_shares(profile)
    return {
        **profile.header,
        "profile": str(out),
        "bytes": out.stat().st_size,
        "sites": [{**site.as_json(), "core_share": shares[site.name]} for site in profile.sites],
    }


def _show(console: "Console", profile: "Profile", out: Path) -> None:
    from scarprune.cli.answer import facts
    from scarprune.cli.words import median_and_range, percent, size
    from scarprune.pipeline.stages import core_shares
    from scarprune.stats.summary import spread

    channels = sum(site.width for site in profile.sites)
    core = spread(core_shares(profile).values())
    rows = [
        ("measured", f"{profile.targets():,} predicted tokens in {profile.blocks} blocks"),
        ("channels", f"{channels:,} in {len(profile.sites)} sites"),
        (f"core ({percent(profile.header['rho'], 0)})", f"{median_and_range(core)} of a site's loss proxy"),
        ("written", f"{out} ({size(out.stat().st_size)})"),
    ]
    console.print(facts(rows))
