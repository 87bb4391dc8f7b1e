"""Loss of removing sets of channels: predicted against measured."""

from typing import Any

from scarprune.report.draw import altair, data, decades, ranged, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import CORE, HALO, INK, REST

# As the artifact calls them, and as a legend on a phone has room for.
SHORT = {
    "activation_outliers_outside_core": "active, not core",
    "core_that_is_no_outlier": "core, not active",
    "next_by_loss_proxy": "next in line",
    "matched_to_halo": "like the halo",
}


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a set with a positive prediction and a positive loss."""
    keys = ("site", "replacement", "positions", "size", "ratio", "not_quadratic")
    return [
        {"set": SHORT.get(item["set"], item["set"].replace("_", " ")), **{key: item.get(key) for key in keys}}
        | {"predicted": item["predicted_nats"], "measured": item["d_nats"]}
        for item in section(document, "sets")
        if (item.get("predicted_nats") or 0) > 0 and (item.get("d_nats") or 0) > 0
    ]


def draw(document: Document) -> Any:
    """Points around the diagonal, by set."""
    alt, found = altair(), rows(document)
    chart = alt.Chart(data(found, "sets"))
    numbers = [row[key] for row in found for key in ("predicted", "measured")]
    ends = [{"predicted": at, "measured": at} for at in (min(numbers), max(numbers))]
    x = ranged(alt, "predicted", "predicted, nats per token")
    y = alt.Y("measured:Q", title="measured, nats per token", scale=alt.Scale(type="log"))
    x.axis, y.axis = alt.Axis(format="~g", values=decades(1, 3)), alt.Axis(format="~g", values=decades(1, 3))
    names = sorted({row["set"] for row in found}, key=lambda name: (name != "core", name != "halo", name))
    others = iter((REST, "#c28a1c", "#3c8d80", "#7b61a8", "#a05a7c", "#5b6b2e"))
    known = {"core": CORE, "halo": HALO}
    scale = alt.Scale(domain=names, range=[known.get(name) or next(others, REST) for name in names])
    color = alt.Color("set:N", scale=scale, legend=alt.Legend(title=None, columns=2))
    tips = ["set:N", "site:N", "replacement:N", "positions:N", "size:Q"]
    tips += [alt.Tooltip(f"{key}:Q", format=".3g") for key in ("predicted", "measured", "ratio")]
    line = alt.Chart(alt.Data(values=ends)).mark_line(color=INK, strokeDash=[3, 3], strokeWidth=1)
    dots = chart.mark_point(size=70, filled=True, opacity=0.85)
    return whole(
        line.encode(x=x, y=y),
        dots.encode(x=x, y=y, color=color, tooltip=tips),
        height=320,
    )


FIGURE = Figure(
    "sets",
    130,
    "validation",
    "Removing whole sets: predicted and measured",
    "Look at how far above the dotted diagonal the large sets stand: sums of single losses do not say what "
    "many removals together cost.",
    draw,
)
