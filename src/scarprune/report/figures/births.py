"""When the channels of the final core entered it."""

from typing import Any

from scarprune.report.draw import altair, data, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import CORE


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a checkpoint: how many channels of the final core were first in the core there."""
    return [
        {"step": item["step"], "born": item["born"]}
        for item in section(document, "births", "counts")
        if item.get("step") is not None and item.get("born") is not None
    ]


def draw(document: Document) -> Any:
    """A bar a checkpoint."""
    alt = altair()
    bars = alt.Chart(data(rows(document), "births")).mark_bar(color=CORE, cornerRadiusEnd=2)
    return whole(
        bars.encode(
            x=alt.X("step:O", title="training step", axis=alt.Axis(labelAngle=0, format="~s")),
            y=alt.Y("born:Q", title="channels of the final core", axis=alt.Axis(tickMinStep=1)),
            tooltip=[alt.Tooltip("step:Q", format=","), "born:Q"],
        ),
        height=200,
    )


FIGURE = Figure(
    "births",
    170,
    "trajectory",
    "When each channel of the core was born",
    "Look at where the bars are tall: that many channels of the final core were in the core there for the "
    "first time.",
    draw,
)
