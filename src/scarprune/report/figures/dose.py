"""Loss over a growing part of the core removed."""

from typing import Any

from scarprune.report.draw import altair, data, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import CORE, REST

_SERIES = {"d_nats": "measured", "predicted_nats": "predicted"}


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a site, count of channels and series."""
    return [
        {"site": curve["site"], "channels": count, "what": word, "nats": value}
        for curve in section(document, "dose")
        for key, word in _SERIES.items()
        for count, value in zip(curve["channels"], curve.get(key) or [], strict=False)
        if value is not None
    ]


def draw(document: Document) -> Any:
    """Measured as a full line, predicted as a dashed one; a menu of sites."""
    alt, found = altair(), rows(document)
    chart = alt.Chart(data(found, "dose"))
    names = list(dict.fromkeys(row["site"] for row in found))
    first = "all" if "all" in names else names[0]
    menu = alt.param(name="site", value=first, bind=alt.binding_select(options=names, name="Site "))
    words = list(_SERIES.values())
    return whole(
        chart.transform_filter("datum.site === site")
        .mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=60, opacity=1))
        .encode(
            x=alt.X("channels:Q", title="core channels removed, largest first"),
            y=alt.Y("nats:Q", title="excess loss, nats per token"),
            color=alt.Color("what:N", scale=alt.Scale(domain=words, range=[CORE, REST])),
            strokeDash=alt.StrokeDash(
                "what:N", scale=alt.Scale(domain=words, range=[[1, 0], [5, 4]]), legend=None
            ),
            tooltip=["site:N", "channels:Q", "what:N", alt.Tooltip("nats:Q", format=".3g")],
        ),
        height=260,
    ).add_params(menu)


FIGURE = Figure(
    "dose",
    120,
    "validation",
    "Removing more and more of the core",
    "Look at where the red line leaves the grey one: beyond that point losses no longer add up as the "
    "prediction says.",
    draw,
)
