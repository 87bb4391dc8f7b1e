"""``scarprune sweep``: scores, sparsities, compensations, protection and seeds against each other."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from scarprune.pipeline.sweep.grid import Grid


def _list_of(kind: Callable[[str], Any], words: str) -> Callable[[str], list[Any]]:
    """The parser of values that are joined by commas."""

    def parse(value: str) -> list[Any]:
        try:
            return [kind(part.strip()) for part in value.split(",")]
        except ValueError:
            raise click.BadParameter(f"{value!r} is no list of {words} joined by commas.") from None

    return parse


_NAMES, _NUMBERS, _WHOLE = _list_of(str, "names"), _list_of(float, "numbers"), _list_of(int, "whole numbers")


@click.command("sweep")
@options.model
@click.option("--out", type=options.PATH, required=True, help="Folder of runs.jsonl, sweep.json, profiles/.")
@click.option("--text", help="What to measure on [default: the built-in calibration text].")
@click.option(
    "--eval", "evaluation", metavar="TEXT", help="What to judge on [default: the built-in evaluation text]."
)
@click.option(
    "--eval-blocks",
    "evaluation_blocks",
    type=int,
    help="How many blocks to judge on [default: all of --eval, else up to 64].",
)
@click.option(
    "--scores",
    type=_NAMES,
    metavar="all|baselines|LIST",
    default="baselines,fisher_activation,scar_prot,loss_proxy",
    show_default=True,
    help="What ranks the channels; see `scores`.",
)
@click.option(
    "--sparsities",
    type=_NUMBERS,
    metavar="LIST",
    default="0.2,0.5",
    show_default=True,
    help="Fractions of channels to remove.",
)
@click.option(
    "--compensate",
    type=_NAMES,
    metavar="LIST",
    default="none",
    show_default=True,
    help="How channels that stay make up for those that go: none, bias, ls, refit.",
)
@click.option(
    "--protect", type=_NAMES, metavar="LIST", default="none", show_default=True, help="none, core or both."
)
@click.option(
    "--seeds",
    type=_WHOLE,
    metavar="LIST",
    default="0",
    show_default=True,
    help="Of drawing the blocks to measure on, and of sampling.",
)
@click.option(
    "--reference",
    metavar="SCORE[:COMPENSATION[:PROTECT]]",
    help="What the others are compared with [default: the first].",
)
@options.bounding
@options.allocating
@options.measuring
@options.length
@options.cutting
@options.loading
@click.option("--dry-run", is_flag=True, help="List the runs and end.")
@click.option("--resume", is_flag=True, help="Go on with the sweep in --out; it may also grow.")
@options.overwrite
@options.json
@options.quiet
def command(
    model: str,
    out: Path,
    text: str | None,
    evaluation: str | None,
    evaluation_blocks: int | None,
    reference: str | None,
    dry_run: bool,
    resume: bool,
    overwrite: bool,
    json_file: str | None,
    **given: Any,
) -> None:
    """Prune MODEL in many ways, judge all on the same text, and compare them over seeds.

    The model is profiled once for each seed. Finished runs are lines of OUT/runs.jsonl, so that the same
    command with --resume goes on after a kill; OUT/sweep.json holds means, intervals and paired differences.
    """
    from scarprune.cli.answer import Answer
    from scarprune.cli.interrupt import resumable
    from scarprune.pipeline.inputs import Compensating, Loading, Measuring, Planning, Reading
    from scarprune.pipeline.sweep.grid import grid, reference_of
    from scarprune.pipeline.sweep.sweep import sweep

    answer = Answer("sweep", json_file, overwrite or resume)
    names = ("scores", "sparsities", "compensate", "protect", "seeds")
    chosen = grid(**{name: given.pop(name) for name in names})
    compared = reference_of(chosen, reference)
    if dry_run:
        answer.give({"runs": _listed(chosen)}, lambda console: _list(console, chosen))
        return
    with resumable(out):
        found = sweep(
            model,
            out,
            chosen,
            compared,
            text=text,
            evaluation=evaluation,
            evaluation_blocks=evaluation_blocks,
            loading=options.pick(Loading, given),
            reading=Reading(**{name: given[name] for name in ("length", "protocol", "bos", "field")}),
            measuring=Measuring(blocks=given["blocks"], batch=given["batch"], compiled=given["compiled"]),
            planning=Planning(**{name: given[name] for name in ("multiple_of", "allocation", "cap")}),
            compensating=Compensating(
                compensate_steps=given["compensate_steps"],
                compensate_seconds=given["compensate_seconds"],
                own_text=given["own_text"],
            ),
            resume=resume,
            overwrite=overwrite,
        )
    answer.give(found, lambda console: _show(console, found, out))


def _listed(chosen: "Grid") -> list[dict[str, Any]]:
    return [{**run.way.as_json(), "sparsity": run.sparsity, "seed": run.seed} for run in chosen.runs()]


def _list(console: "Console", chosen: "Grid") -> None:
    for run in chosen.runs():
        console.print(run.words)
    console.print(f"\n{len(chosen.runs())} runs.")


def _show(console: "Console", found: dict[str, Any], out: Path) -> None:
    from scarprune.cli.answer import table
    from scarprune.cli.words import parameters, percent, shorten
    from scarprune.pipeline.sweep.grid import Way

    reference = Way(**found["reference"])
    rows = []
    for row in found["rows"]:
        way = Way(row["score"], row["compensate"], row["protect"])
        rows.append(
            (
                way.words,
                percent(row["achieved_sparsity"]),
                parameters(row["parameters_after"]),
                _spread(row["excess_nats"]),
                "reference" if way == reference else _spread(row["difference"], sign="+"),
                "*" if row["pareto"] else "",
            )
        )
    columns = ("channels that stay", "cut", "parameters", "excess, nats", "minus reference", "")
    console.print(table(columns, rows))
    seeds, dense = found["seeds"], found["dense"]["perplexity"]
    over = f"mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else f"of seed {seeds[0]}"
    console.print(
        f"\nexcess = ln(perplexity / dense perplexity), {over}; dense perplexity {shorten(dense)} on "
        f"{found['dense']['tokens']:,} tokens, {parameters(found['parameters_before'])} parameters. "
        "Differences are paired by seed, at the same sparsity. * no row as small costs less."
    )
    console.print(f"\nWritten: {out}/sweep.json, {out}/runs.jsonl")


def _spread(over: dict[str, Any], sign: str = "") -> str:
    if over["value"] is None:
        return "not finite"
    spread = "" if over["sd"] is None else f" ± {over['sd']:.3f}"
    return f"{over['value']:{sign}.3f}{spread}"
