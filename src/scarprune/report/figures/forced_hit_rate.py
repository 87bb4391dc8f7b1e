"""Loss of a pruned model where the share of the core that goes is fixed and all else is drawn."""

from typing import Any

from scarprune.report.draw import altair, data, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import CORE


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a share, ascending."""
    found = [
        {
            "share": item["share_of_core_pruned"],
            "excess": item["excess_nats"],
            "low": item["excess_nats"] - 2 * (item.get("standard_error") or 0.0),
            "high": item["excess_nats"] + 2 * (item.get("standard_error") or 0.0),
            "sparsity": item["sparsity"],
        }
        for item in section(document, "forced_hit_rate")
        if item.get("share_of_core_pruned") is not None and item.get("excess_nats") is not None
    ]
    return sorted(found, key=lambda row: row["share"])


def draw(document: Document) -> Any:
    """A line over the share of the core, with twice the standard error."""
    alt = altair()
    chart = alt.Chart(data(rows(document), "forced_hit_rate"))
    x = alt.X(
        "share:Q",
        title="share of the core that was cut",
        axis=alt.Axis(format="%"),
        scale=alt.Scale(padding=10),
    )
    y = alt.Y("excess:Q", title="excess loss, nats per token", scale=alt.Scale(zero=True))
    tips = [
        alt.Tooltip("sparsity:Q", format=".0%"),
        alt.Tooltip("share:Q", title="core cut", format=".0%"),
        *(alt.Tooltip(f"{key}:Q", format=".3f") for key in ("excess", "low", "high")),
    ]
    return whole(
        chart.mark_rule(strokeWidth=2, opacity=0.6, color=CORE).encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        chart.mark_line(strokeWidth=2.2, color=CORE).encode(x=x, y=y),
        chart.mark_circle(size=70, opacity=1, color=CORE).encode(x=x, y=y, tooltip=tips),
        height=260,
    )


FIGURE = Figure(
    "forced_hit_rate",
    143,
    "validation",
    "The core cut in part, all else at random",
    "Look at how steep the line is: as many channels are cut at every point, at random but for the core, so "
    "what it climbs is the core's alone. Bars are twice the standard error.",
    draw,
)
