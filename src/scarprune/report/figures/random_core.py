"""Rankings with the core protected, and with as many random channels."""

from typing import Any

from scarprune.report.draw import altair, data, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import CORE, REST

_RANKINGS = {"loss_proxy": "by loss proxy", "random": "at random"}
PROTECTED = {"core": "core kept", "random": "random 1% kept"}


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a ranking and what it protects."""
    return [
        {
            "ranking": _RANKINGS.get(item["ranking"], item["ranking"]),
            "protected": PROTECTED.get(item["protected"], item["protected"]),
            "excess": item["excess_nats"],
            "low": item["excess_nats"] - 2 * (item.get("standard_error") or 0.0),
            "high": item["excess_nats"] + 2 * (item.get("standard_error") or 0.0),
            "sparsity": item["sparsity"],
        }
        for item in section(document, "random_core")
        if item.get("excess_nats") is not None
    ]


def draw(document: Document) -> Any:
    """Points with twice the standard error, a line a ranking."""
    alt, found = altair(), rows(document)
    chart = alt.Chart(data(found, "random_core"))
    names = list(dict.fromkeys(row["ranking"] for row in found))
    y = alt.Y("ranking:N", title=None, sort=names, axis=alt.Axis(labelLimit=180))
    x = alt.X("excess:Q", title="excess loss, nats per token", scale=alt.Scale(zero=True))
    words = list(PROTECTED.values())
    color = alt.Color("protected:N", scale=alt.Scale(domain=words, range=[CORE, REST]))
    offset = alt.YOffset("protected:N", sort=words)
    tips = ["ranking:N", "protected:N", alt.Tooltip("sparsity:Q", format=".0%")]
    tips += [alt.Tooltip(f"{key}:Q", format=".3f") for key in ("excess", "low", "high")]
    return whole(
        chart.mark_rule(strokeWidth=2).encode(
            x=alt.X("low:Q"), x2="high:Q", y=y, yOffset=offset, color=color
        ),
        chart.mark_circle(size=90, opacity=1).encode(x=x, y=y, yOffset=offset, color=color, tooltip=tips),
        height=150,
    )


FIGURE = Figure(
    "random_core",
    146,
    "validation",
    "Is it the core that must be kept, or any 1%?",
    "Look at the distance within a line: where a ranking costs the same with a random hundredth kept "
    "instead, keeping the core adds nothing to it. Bars are twice the standard error.",
    draw,
)
