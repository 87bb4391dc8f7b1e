"""``scarprune reproduce``: the paper's whole programme for one model, beside its numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console


def _numbers(ctx: click.Context, parameter: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    try:
        return None if value is None else tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of numbers with commas between.") from None


@click.command("reproduce")
@click.argument("preset", metavar="PRESET|MODEL")
@click.option("--out", type=options.PATH, help="Folder to write [default: reproduce-PRESET].")
@click.option("--model", help="Where the preset's weights lie [default: its hub id].")
@click.option("--text", help="What to measure on [default: WikiText-2 for a model of the paper, else demo].")
@click.option("--eval", "evaluation", metavar="TEXT", help="What to judge on [default: as --text].")
@click.option(
    "--steps", metavar="STEP,...", help="profile, findings, probes, pruning, paper, paper-pruning, report."
)
@click.option(
    "--sparsities", callback=_numbers, metavar="F,...", help="[default: the preset's, or 0.1 .. 0.7]"
)
@click.option("--blocks", type=int, help="Blocks to measure on.")
@click.option("--length", type=int, help="Tokens of a block.")
@click.option("--eval-blocks", "evaluation_blocks", type=int, help="Blocks to judge pruned models on.")
@click.option("--probe-blocks", type=int, help="Blocks to remove single channels and sets on.")
@click.option("--channels", type=int, help="Single channels to remove.")
@click.option("--pairs", type=int, help="Matched pairs of channels, of each kind.")
@click.option("--flips", type=int, help="Sign flips of the halo's null.")
@click.option("--random-cores", type=int, help="Random cores to compare the core with.")
@click.option("--paper-texts", type=int, help="Lines of text that the paper's protocol measures on.")
@click.option("--paper-length", type=int, help="Tokens that it cuts each of them to.")
@click.option("--paper-block", type=int, help="Tokens of a block that it judges on.")
@click.option("--paper-blocks", type=int, help="How many of those [default: all of the text].")
@click.option("--sparsegpt/--no-sparsegpt", default=None, help="Whether to compute paper_sparsegpt.")
@click.option("--seed", type=int, help="Of all draws.")
@click.option("--protocol", metavar="packed|contiguous|documents", help="How our blocks are cut.")
@click.option("--field", help="Field of a row that holds the text.")
@click.option("--dry-run", is_flag=True, help="Print steps, memory and time, and do nothing.")
@options.loading
@options.resume
@options.overwrite
@options.json
@options.quiet
def command(
    preset: str,
    out: Path | None,
    steps: str | None,
    dry_run: bool,
    resume: bool,
    overwrite: bool,
    json_file: str | None,
    **given: Any,
) -> None:
    """The programme of arXiv 2604.23475 on one model, under its own protocol and under ours.

    Profile, findings, probes, every score at every sparsity, the paper's protocol and baselines, and a table
    beside the paper's numbers. PRESET is one of demo, llama-3.1-8b, mistral-7b, llama-2-7b, qwen2-7b,
    llama-3.1-70b, olmo-2-7b; of any other MODEL the paper says nothing.
    """
    from scarprune.artifacts import partial_path
    from scarprune.cli.answer import Answer
    from scarprune.cli.interrupt import resumable
    from scarprune.pipeline.inputs import Loading
    from scarprune.pipeline.reproduce.programme import chosen_steps, programme
    from scarprune.pipeline.reproduce.rehearse import rehearse
    from scarprune.pipeline.reproduce.run import reproduce

    answer = Answer("reproduction", json_file, overwrite)
    loading, wanted = options.pick(Loading, given), chosen_steps(steps)
    made = programme(preset, dtype=loading.dtype, **given)
    if dry_run:
        expected = rehearse(made, loading=loading, steps=wanted)
        answer.give(expected, lambda console: _show_expected(console, expected))
        return
    folder = out or Path(f"reproduce-{Path(preset).name}")
    with resumable(partial_path(folder)):
        found = reproduce(made, folder, loading=loading, steps=wanted, resume=resume, overwrite=overwrite)
    answer.give(found, lambda console: _show(console, found, folder))


def _show_expected(console: "Console", expected: dict[str, Any]) -> None:
    from scarprune.cli.answer import facts, table
    from scarprune.cli.words import parameters
    from scarprune.runtime.memory import gib
    from scarprune.runtime.progress import duration

    seconds = expected["seconds"]
    rows = [
        (name, f"{count:.1e}", duration(seconds[name]) if seconds else "unknown")
        for name, count in expected["operations"].items()
    ]
    console.print(table(("step", "operations", "time, about"), rows))
    console.print()
    pairs = [
        ("model", f"{expected['model']}, {parameters(expected['parameters'])} parameters"),
        ("weights", gib(expected["weights_bytes"])),
        ("memory, least", f"{gib(expected['one_block_bytes'])}: weights and one block, forward and backward"),
        ("paper_sparsegpt", gib(expected["sparsegpt_bytes"])),
        ("paper's text to judge on", expected["paper_evaluation"]),
    ]
    if seconds:
        pairs.append(("time, about", f"{duration(sum(seconds.values()))} on {expected['device']}"))
    pairs += [("unknown", reason) for reason in expected["missing"].values()]
    console.print(facts(pairs))


def _show(console: "Console", found: dict[str, Any], folder: Path) -> None:
    from scarprune.cli.answer import table

    columns = ("quantity", "paper", "paper's protocol here", "our protocol here")
    keys = ("paper", "paper_protocol", "our_protocol")
    rows = [(row["quantity"], *(_number(row[key]) for key in keys)) for row in found["table"]]
    console.print(table(columns, rows))
    told = {True: "holds", False: "does not hold", None: "not decided"}
    console.print()
    for claim in found["claims"]:
        console.print(f"{claim['claim']}: {told[claim['holds']]}. {claim['why']}")
    for part, reason in found["missing"].items():
        console.print(f"\nNot there: {part.replace('_', ' ')}: {reason}")
    console.print(f"\nWritten: {folder}/ (reproduction.json has every number)")


def _number(value: float | None) -> str:
    from scarprune.cli.words import shorten

    if value is None:
        return ""
    return shorten(value) if value >= 1 else f"{value:.3g}"
