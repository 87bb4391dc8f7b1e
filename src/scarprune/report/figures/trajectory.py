"""Share of the loss proxy in the core, over training."""

from collections.abc import Sequence
from typing import Any

from scarprune.report.draw import altair, data, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import CORE


def rows(document: Document, keys: Sequence[str]) -> list[dict[str, Any]]:
    """One row a checkpoint and quantity: median, least and greatest over sites."""
    found = []
    for point in section(document, "checkpoints"):
        for key in keys:
            spread = point.get(key) or {}
            if spread.get("median") is not None:
                at = {"checkpoint": point["name"], "step": point["step"], "tokens": point.get("tokens")}
                numbers = {name: spread.get(name) for name in ("median", "min", "max", "chance")}
                found.append({**at, "what": key.replace("_", " "), **numbers})
    return found


def over_steps(document: Document, name: str, keys: Sequence[str], y: Any, colors: Sequence[str]) -> Any:
    """Medians as lines over steps with their range as a band."""
    alt, found = altair(), rows(document, keys)
    chart = alt.Chart(data(found, name))
    field = "step" if all(row["step"] is not None for row in found) else "checkpoint"
    x = alt.X(f"{field}:Q", title="training step", axis=alt.Axis(format="~s", tickCount=6))
    if field == "checkpoint":
        x = alt.X("checkpoint:O", sort=None, title=None)
    names = [key.replace("_", " ") for key in keys]
    legend = alt.Legend() if len(names) > 1 else None
    color = alt.Color("what:N", scale=alt.Scale(domain=names, range=list(colors)), legend=legend)
    tips = ["checkpoint:N", "what:N", alt.Tooltip("tokens:Q", format=",")]
    tips += [alt.Tooltip(f"{key}:Q", format=".3g") for key in ("median", "min", "max", "chance")]
    line = chart.mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=60, opacity=1))
    return whole(
        chart.mark_area(opacity=0.14).encode(x=x, y=alt.Y("min:Q"), y2="max:Q", color=color),
        line.encode(x=x, y=y, color=color, tooltip=tips),
        height=250,
    )


def draw(document: Document) -> Any:
    """The median over sites, and the range in a band."""
    alt = altair()
    y = alt.Y(
        "median:Q", title="share held by the core", axis=alt.Axis(format="%"), scale=alt.Scale(domainMin=0)
    )
    return over_steps(document, "trajectory", ["core_share"], y, [CORE])


FIGURE = Figure(
    "trajectory",
    150,
    "trajectory",
    "When concentration comes about",
    "Look at when the line rises: before the first checkpoint shown, or over training; the band reaches "
    "from the least concentrated site to the most.",
    draw,
)
