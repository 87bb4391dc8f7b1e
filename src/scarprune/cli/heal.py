"""``scarprune heal``: a cut model learns from its dense teacher."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from scarprune.pipeline.heal import HealedFolder


@click.command("heal")
@click.argument("small")
@click.option("--teacher", required=True, metavar="MODEL", help="The dense model that SMALL was cut from.")
@click.option("--out", type=options.PATH, help="The folder to write [default: SMALL-healed].")
@click.option("--text", help="What to learn from [default: the built-in calibration text].")
@click.option("--blocks", type=int, help="Blocks of it [default: all].")
@options.own_text
@click.option("--eval", "evaluation", metavar="TEXT", help="What to judge on besides the held-out blocks.")
@click.option("--eval-blocks", "evaluation_blocks", type=int, help="Blocks of it [default: all].")
@click.option("--seconds", type=float, help="Budget of time, besides writing own text [default: 60].")
@click.option("--tokens", type=int, help="Budget of tokens read.")
@click.option("--steps", type=int, help="Budget of optimizer steps.")
@click.option("--batch", default=16, show_default=True, help="Blocks of one step, over all processes.")
@click.option(
    "--micro",
    type=options.auto_or_number,
    metavar="auto|N",
    default="auto",
    show_default=True,
    help="Blocks at once; the rest of a batch is accumulated. auto: what fits.",
)
@click.option(
    "--lr",
    type=options.auto_or_rate,
    metavar="auto|X",
    default="auto",
    show_default=True,
    help="Highest learning rate (AdamW); auto: by the weights' size and what is to mend, for LoRA 3e-4.",
)
@click.option("--warmup", default=0.05, show_default=True, help="Share of the budget for it to go up.")
@click.option(
    "--hidden-weight",
    default=0.0,
    show_default=True,
    help="Weight of the relative squared error of hidden states beside the divergence.",
)
@click.option("--lora", type=int, metavar="RANK", help="Train adapters of this rank alone (needs peft).")
@click.option("--checkpointing", is_flag=True, help="Less memory, more time: activations twice.")
@click.option(
    "--cuts",
    type=int,
    help="Cut the text in so many ways, and keep the teacher's answers [default: no end].",
)
@click.option(
    "--precision",
    "precision",
    default="auto",
    show_default=True,
    metavar="auto|float32|bfloat16",
    help="Of computing while training; auto: bfloat16 on a GPU. Weights train in float32.",
)
@click.option(
    "--compile",
    default="auto",
    show_default=True,
    metavar="auto|none|objective|layers",
    help="What torch compiles on a GPU; auto: what pays within the budget.",
)
@options.reading
@options.loading
@options.resume
@options.overwrite
@options.json
@options.quiet
def command(
    small: str,
    teacher: str,
    out: Path | None,
    text: str | None,
    blocks: int | None,
    evaluation: str | None,
    evaluation_blocks: int | None,
    own_text: int | Literal["auto"],
    precision: str,
    resume: bool,
    overwrite: bool,
    json_file: str | None,
    **given: Any,
) -> None:
    """Train the cut model SMALL for a short time to say what its dense teacher says.

    The objective is the divergence of the two next-token distributions on blocks of TEXT. A sixteenth of them
    is held out and decides which weights are kept: the output is never worse there than SMALL. Several GPUs:
    torchrun --nproc-per-node N -m scarprune heal ...
    """
    from scarprune.artifacts import partial_path
    from scarprune.cli.answer import Answer
    from scarprune.cli.interrupt import resumable
    from scarprune.distill.settings import Settings
    from scarprune.pipeline.heal import heal
    from scarprune.pipeline.inputs import Loading, Reading

    out = out or _beside(small)
    answer = Answer("heal", json_file, overwrite)
    reading, loading = options.pick(Reading, given), options.pick(Loading, given)
    with resumable(partial_path(out)):
        result = heal(
            small,
            teacher,
            out,
            text=text,
            blocks=blocks,
            evaluation=evaluation,
            evaluation_blocks=evaluation_blocks,
            loading=loading,
            reading=reading,
            own_text=own_text,
            settings=Settings(dtype=precision, seed=reading.seed, **given),
            resume=resume,
            overwrite=overwrite,
        )
    if result is not None:
        healed = result
        answer.give(healed.as_json(), lambda console: _show(console, healed))


def _beside(small: str) -> Path:
    """Where the output goes that nobody named: beside a folder or file, here for a hub id."""
    name = Path(small).name.removesuffix(".gguf") + "-healed"
    return Path(small).with_name(name) if Path(small).exists() else Path(name)


def _show(console: "Console", result: "HealedFolder") -> None:
    from scarprune.cli import show
    from scarprune.cli.answer import facts
    from scarprune.cli.words import with_error
    from scarprune.evaluate.perplexity import excess
    from scarprune.runtime.progress import duration

    healed, judged = result.healed, result.judged
    rate = "" if healed.tokens_per_second is None else f", {healed.tokens_per_second:,.0f} tokens/s"
    rows = [
        ("divergence", f"{healed.before:.4f} -> {healed.after:.4f} nats per token on held-out blocks"),
        ("learned", f"{healed.tokens:,} tokens in {healed.steps:,} steps, {duration(healed.seconds)}{rate}"),
        ("written", str(result.out)),
    ]
    if result.own:
        rows.insert(2, ("own text", f"{result.own:,} of the blocks were written by the teacher"))
    if not healed.improved:
        rows.insert(1, ("weights", "as they came: nothing that was tried is better"))
    if judged is not None:
        results = {"dense": judged.dense, "before": judged.before, "after": judged.after}
        console.print(f"{show.text(judged.blocks)}\n")
        console.print(show.perplexities(results))
        console.print()
        before, after = (with_error(*excess(judged.dense, r)) for r in (judged.before, judged.after))
        rows.insert(0, ("excess", f"{before} -> {after} nats (paired over blocks)"))
    console.print(facts(rows))
