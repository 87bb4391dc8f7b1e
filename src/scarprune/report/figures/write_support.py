"""How much of what the core writes lands on few dimensions, beside random cores, by layer."""

from typing import Any

from scarprune.report.draw import altair, data, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import CORE, REST

_WORDS = ("core", "random cores")


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a site whose core writes anything."""
    layers = {site["name"]: site["layer"] for site in document["sites"]}
    return [
        {
            "site": site["name"],
            "layer": layers[site["name"]],
            "share": site["share"],
            **{key: site.get(f"random_{key}") for key in ("mean", "low", "high")},
        }
        for site in section(document, "halo", "write_support", "sites")
        if site.get("share") is not None
    ]


def draw(document: Document) -> Any:
    """A point a layer over the range of random cores."""
    alt = altair()
    chart = alt.Chart(data(rows(document), "write_support"))
    x = alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0))
    y = alt.Y(
        "share:Q",
        title="written on a sixteenth of dimensions",
        axis=alt.Axis(format="%"),
        scale=alt.Scale(zero=True),
    )
    color = alt.Color("what:N", scale=alt.Scale(domain=list(_WORDS), range=[CORE, REST]))
    tips = [
        "site:N",
        alt.Tooltip("share:Q", title="core", format=".1%"),
        alt.Tooltip("mean:Q", title="random cores, mean", format=".1%"),
        alt.Tooltip("low:Q", title="2.5% of them below", format=".1%"),
        alt.Tooltip("high:Q", title="2.5% of them above", format=".1%"),
    ]
    core, random = (chart.transform_calculate(what=f"'{word}'") for word in _WORDS)
    return whole(
        random.transform_filter("isValid(datum.mean)")
        .mark_rule(strokeWidth=7, opacity=0.45)
        .encode(x=x, y=alt.Y("low:Q"), y2="high:Q", color=color),
        core.mark_circle(size=60, opacity=1).encode(x=x, y=y, color=color, tooltip=tips),
        height=240,
    )


FIGURE = Figure(
    "write_support",
    55,
    "findings",
    "Does the core write to few dimensions?",
    "Look at whether the points stand above the grey bars, which hold 95 of 100 random cores of the same "
    "size: only then is the place where the core writes its own.",
    draw,
)
