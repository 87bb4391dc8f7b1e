"""``scarprune validate``: does the loss proxy tell the truth about this model?"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console


@click.command("validate")
@options.model
@click.option(
    "--profile", type=options.PATH, required=True, help="The model's profile, whose scores are judged."
)
@click.option(
    "--text",
    default="demo",
    show_default=True,
    help="What to judge on; demo is the built-in evaluation text.",
)
@click.option("--out", type=options.PATH, help="Folder for validation.json.")
@click.option("--blocks", default=16, show_default=True, help="Blocks of the text to read.")
@click.option("--channels", default=200, show_default=True, help="Single channels to remove, one at a time.")
@click.option("--pairs", default=40, show_default=True, help="Matched pairs of channels, of each kind.")
@click.option(
    "--exhaustive-sites", default=0, show_default=True, help="Sites of which every channel is removed."
)
@click.option("--length", default=256, show_default=True, help="Tokens of a block.")
@click.option("--seed", default=0, show_default=True, help="Of drawing blocks, channels and sets.")
@options.loading
@options.resume
@options.overwrite
@options.json
@options.quiet
def command(
    model: str,
    profile: Path,
    out: Path | None,
    json_file: str | None,
    overwrite: bool,
    length: int,
    seed: int,
    **given: Any,
) -> None:
    """Remove channels and sets of channels of MODEL, and compare what it costs with what scores predict."""
    from scarprune.artifacts import partial_path
    from scarprune.cli.answer import Answer
    from scarprune.cli.interrupt import resumable
    from scarprune.pipeline.inputs import Loading, Reading
    from scarprune.pipeline.validate import VALIDATION, validate

    answer = Answer("validation", json_file, overwrite)
    with resumable(partial_path((out or Path()) / VALIDATION)):
        found = validate(
            model,
            profile,
            out,
            overwrite=overwrite,
            reading=Reading(length=length, seed=seed),
            loading=options.pick(Loading, given),
            **given,
        )
    answer.give(found, lambda console: _show(console, found))


def _show(console: "Console", found: dict[str, Any]) -> None:
    from scarprune.cli.answer import facts, table

    rows = []
    for name, against in found["singles"]["spearman"].items():
        rows.append((name, _estimate(against["d"]), _estimate(against["core_only_d"])))
    console.print("Rank correlation with the measured harm (first-order term of the text taken out):\n")
    console.print(table(("score", "all channels", "core alone"), rows))
    console.print()
    sets = [
        (row["set"], str(row["size"]), f"{row['d_nats']:.4f}", _nats(row["predicted_nats"]))
        for row in found["sets"]
        if row["site"] == "all" and row["replacement"] == "zero" and row["positions"] == "all"
    ]
    console.print(table(("set, at all sites", "channels", "measured nats", "predicted"), sets))
    console.print()
    pairs = found["pairs"]
    told = {True: "refuted", False: "not refuted", None: "not decided"}[found["verdict"]["refuted"]]
    console.print(
        facts(
            [
                ("matched in activation", _won(pairs["matched_in_activation_power"], "loss proxy")),
                ("matched in loss proxy", _won(pairs["matched_in_loss_proxy"], "activation power")),
                ("criterion", found["criterion"]),
                ("the loss proxy is", f"{told}: {found['verdict']['reason']}"),
            ]
        )
    )


def _won(pairs: dict[str, Any], what: str) -> str:
    said = f"the larger {what} does more harm in {pairs['wins']} of {pairs['pairs']} pairs"
    rate = pairs["win_rate"]
    return said if rate["low"] is None else f"{said} (95% interval {rate['low']:.0%} to {rate['high']:.0%})"


def _estimate(estimate: dict[str, Any]) -> str:
    if estimate["value"] is None:
        return ""
    if estimate["low"] is None:
        return f"{estimate['value']:.2f}"
    return f"{estimate['value']:.2f} ({estimate['low']:.2f} to {estimate['high']:.2f})"


def _nats(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
