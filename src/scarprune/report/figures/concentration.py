"""Share of the loss proxy in the core, by layer."""

from typing import Any

from scarprune.report.draw import altair, constant, data, label, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import CORE, HALO, REST

_WHAT = ("core", "cross-fitted", "without first 4 positions")


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a site and way to measure: shares as fractions, the plain one with its interval."""
    kinds = section(document, "concentration", "labels")
    layers = {site["name"]: site["layer"] for site in document["sites"]}
    found = []
    for site in next(iter(kinds.values()))["sites"]:
        share = site["core_share"]
        others = (site.get("cross_fitted"), (site.get("by_bands") or {}).get("without_first_4"))
        for what, value in zip(_WHAT, (share["value"], *others), strict=True):
            if value is not None:
                ends = {key: share[key] if what == "core" else None for key in ("low", "high")}
                row = {"site": site["name"], "layer": layers[site["name"]], "what": what}
                found.append({**row, "share": value, **ends})
    return found


def draw(document: Document) -> Any:
    """Points with intervals; hollow where cross-fitted; ticks without the first four positions."""
    alt = altair()
    chart = alt.Chart(data(rows(document), "concentration"))
    x = alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0))
    y = alt.Y("share:Q", title="share held by 1% of the channels", axis=alt.Axis(format="%"))
    looks = {
        "color": alt.Color("what:N", scale=alt.Scale(domain=_WHAT, range=[CORE, REST, HALO])),
        "shape": alt.Shape("what:N", scale=alt.Scale(domain=_WHAT, range=["circle", "circle", "stroke"])),
    }
    tips = ["site:N", "what:N", *(alt.Tooltip(f"{k}:Q", format=".1%") for k in ("share", "low", "high"))]
    bars = chart.mark_rule(color=CORE, strokeWidth=1.6, opacity=0.55).transform_filter("datum.low !== null")
    points = chart.encode(x=x, y=y, tooltip=tips, **looks)
    layers = [
        bars.encode(x=x, y=alt.Y("low:Q"), y2="high:Q"),
        points.transform_filter("datum.what !== 'core'").mark_point(size=70, strokeWidth=1.6, opacity=1),
        points.transform_filter("datum.what === 'core'").mark_point(size=80, filled=True, opacity=1),
        constant("y", 0.01),
    ]
    for name, numbers in _published(document).items():
        layers.append(constant("y", numbers, dash=(1, 3)))
        words = f"{name}, published median"
        layers.append(label(words, x=alt.value(4), y=numbers, dy=-7, align="left"))
    return whole(*layers)


def _published(document: Document) -> dict[str, float]:
    """The paper's median for this very model, where it has one."""
    model = document.get("model", "").rstrip("/").rsplit("/", 1)[-1].lower()
    models = (document.get("paper") or {}).get("models") or {}
    return {
        name: numbers["core_share"]["median"]
        for name, numbers in models.items()
        if model.startswith(name.lower()) and "core_share" in numbers
    }


FIGURE = Figure(
    "concentration",
    10,
    "findings",
    "How much of the loss proxy the core holds",
    "Look at how far the red points stand above the dotted line, where 1% of the channels would hold 1%; "
    "bars are 95% intervals, and a hollow point well below a full one is a core that its own text chose.",
    draw,
)
