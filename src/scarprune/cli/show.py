"""Pieces of answers that several commands show."""

from collections.abc import Mapping

from rich.table import Table

from scarprune.cli.answer import table
from scarprune.cli.words import change, parameters, percent, shorten, size, widths, with_error
from scarprune.cut.report import CutReport
from scarprune.evaluate.perplexity import Perplexity
from scarprune.evaluate.tasks import Metric, TaskResults, difference
from scarprune.plan.plan import Plan
from scarprune.plan.readiness import Readiness, readiness
from scarprune.runtime.progress import duration
from scarprune.text.blocks import Blocks


def sizes(report: CutReport) -> Table:
    """Parameters and bytes before and after a cut."""
    rows = (
        ("parameters", parameters, report.parameters_before, report.parameters_after),
        ("weights", size, report.bytes_before, report.bytes_after),
    )
    shown = [(name, word(before), word(after), change(before, after)) for name, word, before, after in rows]
    return table(("", "before", "after", ""), shown)


def verified(report: CutReport) -> str:
    """What the reload of a cut checkpoint showed."""
    if report.max_logit_difference is None:
        return "every tensor equals its slice of the source, bit for bit"
    reference = "masked dense model's" if report.compensate == "none" else "compensated model's in memory"
    return (
        "reloaded by stock transformers in a fresh process; logits within "
        f"{report.max_logit_difference:.1e} of the {reference}"
    )


def compensation(report: CutReport) -> list[tuple[str, str]]:
    """What came of a compensation; nothing where none was asked for."""
    found = report.compensation
    if found is None:
        return []
    nats = ", ".join(
        f"{step} {'not finite' if loss is None else f'{loss:.4f}'}"
        for step, loss in found["held_out_nats_per_token"].items()
    )
    asked = "" if found["kept"] == found["name"] else f" (asked: {found['name']})"
    words = f"{found['kept']}{asked} in {duration(found['seconds'])}"
    return [("compensation", words), ("held-out nats", f"{nats} per token of calibration text held out")]


def plan(plan: Plan) -> list[tuple[str, str]]:
    """Facts of a plan."""
    return [
        ("score", plan.score + (", core protected" if plan.protect == "core" else "")),
        ("sparsity", f"{percent(plan.achieved_sparsity)} of all channels (asked: {percent(plan.sparsity)})"),
        ("width", widths({site.name: site.width for site in plan.sites}, plan.widths)),
        *ready(readiness([max(plan.widths.values())])),  # one width is stored, smaller sites padded to it
    ]


def ready(found: Readiness) -> list[tuple[str, str]]:
    """Which kernels and formats a width fits, and at which widths it would fit the others."""
    rows = [("fits", ", ".join(f"{need.name} ({need.multiple})" for need in found.met))]
    wider: dict[int, list[str]] = {}
    for need in found.unmet:
        wider.setdefault(found.next_width(need), []).append(need.name)
    rows.append(
        ("would fit", "; ".join(f"{', '.join(names)} at {width:,}" for width, names in wider.items()))
    )
    return [(name, value) for name, value in rows if value]


def text(blocks: Blocks) -> str:
    """What was judged on."""
    shape = f"{len(blocks)} blocks of up to {int(blocks.lengths.max())} tokens, {blocks.protocol}"
    return f"{blocks.source}: {blocks.targets:,} predicted tokens in {shape}"


def perplexities(results: Mapping[str, Perplexity]) -> Table:
    """One evaluation a row."""
    rows = []
    for name, result in results.items():
        bits = "" if result.bits_per_byte is None else f"{result.bits_per_byte:.4f}"
        nats = with_error(result.nats_per_token, result.standard_error, 4)
        rows.append((name, shorten(result.perplexity), nats, bits))
    return table(("", "perplexity", "nats per token", "bits per byte"), rows)


def tasks(results: TaskResults, dense: TaskResults | None) -> Table:
    """One metric of one task a row; parts of groups are left to the JSON."""
    rows = []
    for name, task in results.items():
        if task.part_of is not None:
            continue
        for metric, found in task.metrics.items():
            numbers = [_measured(found)]
            if dense is not None:
                whole = dense[name].metrics[metric]
                numbers = [
                    _measured(whole),
                    _measured(found),
                    _measured(Metric(*difference(whole, found)), "+"),
                ]
            shots = "mixed" if task.num_fewshot is None else str(task.num_fewshot)
            rows.append((name, metric, *numbers, f"{task.n:,}", shots))
    shown = ["model"] if dense is None else ["dense", "under the plan", "difference"]
    return table(("task", "metric", *shown, "items", "few-shot"), rows, left=2)


def _measured(metric: Metric, sign: str = "") -> str:
    if metric.value is None:
        return "not finite"
    error = "" if metric.standard_error is None else f" ± {metric.standard_error:.4f}"
    return f"{metric.value:{sign}.4f}{error}"
