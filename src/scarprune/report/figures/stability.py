"""Agreement of the cores of two halves of the text."""

from typing import Any

from scarprune.report.draw import altair, data, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import CORE, INK, REST

_WHAT = {"split_half": "loss proxy", "activation_split_half": "activation power"}
_WAYS = {"contiguous": "halves", "interleaved": "alternating"}


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a quantity and way to halve the text."""
    stability = section(document, "stability")
    found = []
    for key, what in _WHAT.items():
        for way, words in _WAYS.items():
            jaccard = ((stability.get(key) or {}).get(way) or {}).get("jaccard") or {}
            if jaccard.get("median") is not None:
                numbers = {name: jaccard.get(name) for name in ("median", "min", "max", "chance")}
                found.append({"what": f"{what}, {words}", "of": what, **numbers})
    return found


def draw(document: Document) -> Any:
    """Median over sites with the range, beside chance."""
    alt = altair()
    chart = alt.Chart(data(rows(document), "stability"))
    y = alt.Y("what:N", title=None, sort=None, axis=alt.Axis(labelLimit=230))
    x = alt.X("median:Q", title="Jaccard of the two cores", scale=alt.Scale(domain=[0, 1]))
    color = alt.Color("of:N", scale=alt.Scale(domain=list(_WHAT.values()), range=[CORE, REST]), legend=None)
    tips = ["what:N", *(alt.Tooltip(f"{key}:Q", format=".3f") for key in ("median", "min", "max", "chance"))]
    return whole(
        chart.mark_rule(strokeWidth=2, opacity=0.5).encode(x=alt.X("min:Q"), x2="max:Q", y=y, color=color),
        chart.mark_tick(thickness=2, size=16, color=INK).encode(x="chance:Q", y=y),
        chart.mark_circle(size=90, opacity=1).encode(x=x, y=y, color=color, tooltip=tips),
        height=170,
    )


FIGURE = Figure(
    "stability",
    80,
    "findings",
    "Does another half of the text give the same core?",
    "Look at how far the points stand from the ticks at the left, which are chance; lines reach from "
    "the least stable site to the most.",
    draw,
)
