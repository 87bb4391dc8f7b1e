"""How much of a site's loss proxy its largest channels hold together."""

from typing import Any

from scarprune.report.draw import altair
from scarprune.report.figure import Document, Figure
from scarprune.report.figures.curves import lines


def draw(document: Document) -> Any:
    """Cumulative share by share of channels."""
    alt = altair()
    y = alt.Y(
        "mass:Q", title="share of the loss proxy", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")
    )
    return lines(document, "mass", "mass", y)


FIGURE = Figure(
    "mass",
    30,
    "findings",
    "Mass held by the largest channels",
    "Look at where a line crosses the dotted 1%: that height is the core's share of the site.",
    draw,
)
