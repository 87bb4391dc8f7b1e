"""How often a channel of the halo is more redundant than one of a control, by layer."""

from typing import Any

from scarprune.report.draw import altair, constant, data, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.figures.halo import CONTROLS
from scarprune.report.theme import CORE, HALO, REST


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a site and control of the first variant: AUC with interval."""
    variants = section(document, "halo", "controls", "variants")
    parts = variants.get("plain") or next(iter(variants.values()))
    layers = {site["name"]: site["layer"] for site in document["sites"]}
    found = []
    for control, word in CONTROLS.items():
        for site in (parts.get(control) or {}).get("sites") or []:
            auc = site.get("auc") or {}
            if auc.get("value") is not None:
                numbers = {"auc": auc["value"], "low": auc.get("low"), "high": auc.get("high")}
                found.append(
                    {"site": site["name"], "layer": layers[site["name"]], "control": word, **numbers}
                )
    return found


def draw(document: Document) -> Any:
    """A strip of points a layer, around one half."""
    alt = altair()
    chart = alt.Chart(data(rows(document), "halo_sites"))
    color = alt.Color("control:N", scale=alt.Scale(domain=list(CONTROLS.values()), range=[REST, CORE, HALO]))
    x = alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0))
    offset = alt.XOffset("control:N", sort=list(CONTROLS.values()))
    y = alt.Y("auc:Q", title="AUC, halo over control", scale=alt.Scale(domain=[0, 1]))
    tips = ["site:N", "control:N", *(alt.Tooltip(f"{key}:Q", format=".3f") for key in ("auc", "low", "high"))]
    return whole(
        constant("y", 0.5),
        chart.mark_rule(opacity=0.5).encode(x=x, xOffset=offset, y=alt.Y("low:Q"), y2="high:Q", color=color),
        chart.mark_circle(size=50, opacity=1).encode(x=x, xOffset=offset, y=y, color=color, tooltip=tips),
        height=240,
    )


FIGURE = Figure(
    "halo_sites",
    70,
    "findings",
    "The same by layer",
    "Look at how many points stand above the dotted half, where a channel of the halo and one of the control "
    "are equally likely to be the more redundant one.",
    draw,
)
