"""Loss proxy against activation power, channel by channel."""

from typing import Any

from scarprune.report.draw import altair, data, decades, ranged, site_menu, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import CORE, HALO, REST

_KINDS = {"rest": "rest (sample)", "halo": "halo (sample)", "core": "core"}


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a drawn channel."""
    found = []
    for site in section(document, "channels", "sites"):
        for kind, word in _KINDS.items():
            part = site[kind] or {"index": []}
            for place, index in enumerate(part["index"]):
                row = {"site": site["name"], "what": word, "index": index}
                row |= {
                    key: part[key][place]
                    for key in ("lp", "activation", "activation_rank", "overlap", "n_eff")
                }
                if row["lp"] and row["activation"]:
                    found.append(row)
    return found


def bins(document: Document) -> list[dict[str, Any]]:
    """One row a bin that holds a channel; edges as values, not logarithms."""
    found = []
    for site in section(document, "channels", "sites"):
        x, y = site["bins"]["log10_activation_edges"], site["bins"]["log10_lp_edges"]
        for i, row in enumerate(site["bins"]["counts"]):
            for j, count in enumerate(row):
                if count:
                    edges = (x[j], x[j + 1], y[i], y[i + 1])
                    low, high, bottom, top = (float(f"{10**edge:.4g}") for edge in edges)
                    box = {"x": low, "x2": high, "y": bottom, "y2": top}
                    found.append({"site": site["name"], **box, "count": count})
    return found


def draw(document: Document) -> Any:
    """The bins of all channels in grey, and on them those of core, halo and rest that are named."""
    alt, points = altair(), rows(document)
    menu = site_menu(dict.fromkeys(row["site"] for row in points) or ["none"])
    here = "datum.site === site"
    x = ranged(alt, "x", "activation power, mean u²", nice=False)
    y = alt.Y("y:Q", title="loss proxy, nats per token", scale=alt.Scale(type="log", nice=False))
    x.axis, y.axis = alt.Axis(format="~g", values=decades(1, 3)), alt.Axis(format=".0e", values=decades(1, 3))
    grey = alt.Opacity("count:Q", scale=alt.Scale(type="log", range=[0.12, 0.6]), legend=None)
    boxes = alt.Chart(data(bins(document), "activation_bins")).transform_filter(here).mark_rect(color=REST)
    boxes = boxes.encode(x=x, x2="x2", y=y, y2="y2", opacity=grey, tooltip=["count:Q"])
    formats = {
        "lp": ("loss proxy", ".3g"),
        "activation_rank": ("activation rank", ","),
        "overlap": ("write overlap", ".3f"),
        "n_eff": ("effective tokens", ",.0f"),
    }
    tips = [
        alt.Tooltip("what:N", title="part"),
        alt.Tooltip("site:N"),
        alt.Tooltip("index:Q", title="channel"),
    ]
    tips += [alt.Tooltip(f"{key}:Q", title=name, format=how) for key, (name, how) in formats.items()]
    scale = alt.Scale(domain=list(_KINDS.values()), range=[REST, HALO, CORE])
    dots = alt.Chart(data(points, "activation")).transform_filter(here)
    dots = dots.mark_circle(size=48, opacity=0.85).encode(
        x="activation:Q", y="lp:Q", color=alt.Color("what:N", scale=scale), tooltip=tips
    )
    return whole(boxes, dots, height=360).add_params(menu)


FIGURE = Figure(
    "activation",
    40,
    "findings",
    "Is the core simply what is most active?",
    "Look at how far left the red points reach: core channels there are not among the most active ones; "
    "grey cells hold all channels, darker where there are more.",
    draw,
)
