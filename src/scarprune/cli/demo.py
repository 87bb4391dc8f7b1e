"""``scarprune demo``: the whole story on a model that is at hand."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scarprune.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from scarprune.pipeline.demo import Story

# Measured elsewhere, and quoted as that.
_SMOLLM2_CORE = "20% in SmolLM2-135M (on WikiText-2; docs/results.md)"
_PAPER_CORE = "58.7% in Llama-3.1-8B (arXiv 2604.23475)"
_WEAK = "This small model is weakly concentrated: it shows how the tool works, not how strong the effect is."
_BAR = 40


@click.command("demo")
@click.argument("which", required=False, metavar="[smollm2]")
@click.option(
    "--out",
    type=options.PATH,
    default=Path("scarprune-demo"),
    show_default=True,
    help="Where everything is written.",
)
@options.device
@options.overwrite
@options.json
@options.quiet
def command(which: str | None, out: Path, device: str, overwrite: bool, json_file: str | None) -> None:
    """Tell the whole story on the built-in model, offline; or on SmolLM2-135M.

    Profile, where the loss sits, plan, cut at 50%, perplexity beside other rankings, the smaller checkpoint,
    a sentence before and after. An earlier demo in --out is replaced.
    """
    from scarprune.cli.answer import Answer, console
    from scarprune.pipeline.demo import Story, demo_folder, setting
    from scarprune.pipeline.inputs import Loading

    answer = Answer("demo", json_file, overwrite)
    chosen = setting(which)
    with demo_folder(out) as folder:
        story = Story(chosen, folder, Loading(device=device))
        if answer.for_people:
            _tell(console(), story)
        document = story.write()
    answer.give(document, lambda console: _end(console, out, document["seconds"]))


def _tell(console: "Console", story: "Story") -> None:
    for chapter in (_model, _loss, _rankings, _checkpoint, _sentence):
        chapter(console, story)


def _title(console: "Console", text: str) -> None:
    console.print(f"\n{text}", style="bold")


def _model(console: "Console", story: "Story") -> None:
    from scarprune.cli.words import parameters

    blocks = story.calibration
    count = sum(parameter.numel() for parameter in story.loaded[0].parameters())
    _title(console, f"1. Measure {story.setting.name}")
    sites = story.profile.sites
    console.print(
        f"{parameters(count)} parameters, {sum(site.width for site in sites):,} channels in {len(sites)} "
        "feed-forward networks. "
        f"Each channel was watched while the model predicted {blocks.targets:,} tokens of novels "
        f"({len(blocks)} blocks of {blocks.ids.shape[1]})."
    )


def _loss(console: "Console", story: "Story") -> None:
    from scarprune.cli.words import bar, percent
    from scarprune.stats.summary import spread

    _title(console, "2. Where the loss sits")
    console.print(
        "The core is the 1% of a network's channels with the largest loss proxy. Of all of it they hold:\n"
    )
    shares = story.core_shares
    largest = max(share or 0.0 for share in shares.values())
    for site in story.profile.sites:
        share = shares[site.name]
        if share is not None:
            console.print(f"  layer {site.layer:>2}  {percent(share):>6}  {bar(share / largest, _BAR)}")
    median = spread(shares.values()).median or 0.0
    quoted = f"{_PAPER_CORE}."
    if story.setting.source == "demo":
        quoted = f"{_SMOLLM2_CORE}, {quoted} {_WEAK}"
    console.print(
        f"\nMedian {percent(median)}; spread evenly it would be 1%. Quoted, not measured here: {quoted}"
    )


def _rankings(console: "Console", story: "Story") -> None:
    from scarprune.cli.answer import table
    from scarprune.cli.words import shorten, with_error
    from scarprune.evaluate.perplexity import excess
    from scarprune.pipeline.demo import RANKINGS, SPARSITY

    blocks = story.evaluation
    _title(console, f"3. Without {SPARSITY:.0%} of all channels")
    console.print(
        f"Perplexity on {blocks.targets:,} tokens of novels by other authors ({len(blocks)} blocks of "
        f"{blocks.ids.shape[1]}), with the channels that stay chosen by different rankings:\n"
    )
    rows = [("all channels", shorten(story.dense.perplexity), "")]
    for ranking in RANKINGS:
        judged = story.pruned[ranking.key]
        rows.append((ranking.words, shorten(judged.perplexity), with_error(*excess(story.dense, judged))))
    console.print(table(("channels that stay", "perplexity", "excess, nats ± s.e."), rows))
    console.print("\nexcess = ln(perplexity / perplexity with all channels), its error paired over blocks.")


def _checkpoint(console: "Console", story: "Story") -> None:
    from scarprune.cli import show

    _title(console, "4. Cut: a smaller checkpoint that stock transformers loads")
    console.print(show.sizes(story.cut))
    console.print(f"\nVerified: {show.verified(story.cut)}.")


def _sentence(console: "Console", story: "Story") -> None:
    from scarprune.cli.answer import facts

    _title(console, "5. A sentence before and after")
    begin = story.setting.prompt
    console.print(
        facts([("dense", _line(begin + story.dense_words)), ("pruned", _line(begin + story.pruned_words))])
    )


def _line(text: str) -> str:
    return " ".join(text.split()) + " ..."


def _end(console: "Console", out: Path, seconds: float) -> None:
    from scarprune.cli.answer import facts
    from scarprune.runtime.progress import duration

    _title(console, f"Everything is in {out} ({duration(seconds)})")
    console.print(
        facts(
            [
                ("model/", "the smaller checkpoint"),
                (
                    "profile.safetensors",
                    "the sums; `scarprune plan` ranks and plans from them without the model",
                ),
                ("plan.json", "the channels that stay"),
                ("demo.json", "every number above"),
            ]
        )
    )
    console.print("\nYour own model: scarprune prune MODEL OUT --sparsity 0.3 --text FILE")
