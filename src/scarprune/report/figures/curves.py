"""The loss proxy of a site's channels, largest first."""

from typing import Any

from scarprune.report.draw import altair, constant, data, decades, ranged, site_menu, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import CORE, REST


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a site and rank; a channel without loss has no place on a logarithmic axis."""
    return [
        {"site": site["name"], "rank": rank, "share": rank / site["width"], "lp": lp, "mass": mass}
        for site in section(document, "channels", "sites")
        for rank, lp, mass in zip(
            site["rank"], site["lp"], site["cumulative"] or [None] * len(site["rank"]), strict=True
        )
        if lp
    ]


def lines(document: Document, name: str, field: str, y: Any) -> Any:
    """All sites as thin lines over the share of channels, the chosen one in the accent."""
    alt, found = altair(), rows(document)
    chart = alt.Chart(data(found, name))
    x = ranged(alt, "share", "channels, largest first", nice=False)
    x.axis = alt.Axis(format="~%", values=[1e-4, 1e-3, 1e-2, 1e-1, 1])
    tips = [
        alt.Tooltip("site:N"),
        alt.Tooltip("rank:Q", format=","),
        alt.Tooltip("lp:Q", title="loss proxy", format=".3g"),
        alt.Tooltip("mass:Q", title="mass up to here", format=".1%"),
    ]
    menu = site_menu(dict.fromkeys(row["site"] for row in found))
    chosen = chart.transform_filter("datum.site === site").encode(x=x, y=y, tooltip=tips)
    return whole(
        chart.mark_line(strokeWidth=0.8, opacity=0.4, color=REST).encode(x=x, y=y, detail="site:N"),
        chosen.mark_line(strokeWidth=2.4, color=CORE),
        chosen.mark_point(size=26, filled=True, opacity=1, color=CORE),
        constant("x", 0.01),
    ).add_params(menu)


def draw(document: Document) -> Any:
    """LP by rank, both logarithmic."""
    alt = altair()
    scale = alt.Scale(type="log")
    y = alt.Y(
        "lp:Q",
        title="loss proxy, nats per token",
        scale=scale,
        axis=alt.Axis(format=".0e", values=decades(1)),
    )
    return lines(document, "curves", "lp", y)


FIGURE = Figure(
    "curves",
    20,
    "findings",
    "The loss proxy of every channel, sorted",
    "Look at the left end: a line that falls by decades before the dotted 1% is a site whose loss hangs on "
    "few channels; grey lines are the other sites.",
    draw,
)
