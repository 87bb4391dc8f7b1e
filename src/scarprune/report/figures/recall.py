"""Of the channels that are truly the most harmful to remove, how many each score would have kept."""

from typing import Any

from scarprune.report.draw import altair, data, score_words, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import CORE, INK, REST


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a score, the best first."""
    found = section(document, "recall")
    return [
        {"score": score_words(name), "recall": found[name]}
        for name in sorted(found, key=lambda name: (-found[name], name))
    ]


def draw(document: Document) -> Any:
    """Bars, the loss proxy's in the accent."""
    alt, found = altair(), rows(document)
    chart = alt.Chart(data(found, "recall"))
    y = alt.Y("score:N", title=None, sort=[row["score"] for row in found], axis=alt.Axis(labelLimit=200))
    x = alt.X(
        "recall:Q",
        title="share of the worst channels found",
        axis=alt.Axis(format="%"),
        scale=alt.Scale(domain=[0, 1]),
    )
    color = alt.condition("datum.score === 'loss proxy'", alt.value(CORE), alt.value(REST))
    tips = ["score:N", alt.Tooltip("recall:Q", format=".1%")]
    words = chart.mark_text(align="left", dx=5, color=INK).encode(
        x=x, y=y, text=alt.Text("recall:Q", format=".0%")
    )
    return whole(
        chart.mark_bar(height=14, cornerRadiusEnd=2).encode(x=x, y=y, color=color, tooltip=tips),
        words,
        height=30 + 24 * len(found),
    )


FIGURE = Figure(
    "recall",
    115,
    "validation",
    "Who finds the channels that matter most?",
    "Look at the loss proxy beside activation power: every channel of a few sites was removed by itself, and "
    "a bar is the share of the worst ones that a score puts into its top as large.",
    draw,
)
