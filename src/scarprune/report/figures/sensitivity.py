"""How far the halo's redundancy hangs on the choices that define it."""

from typing import Any

from scarprune.report.draw import altair, constant, data, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import CORE, HALO, REST

STATISTICS = {"mean": "mean", "top5": "top 5", "top5_unsigned": "top 5, unsigned"}
_OTHER_RHO, _OTHER_ETA, _OTHER_SUPPORT = "core {:.2g}%", "halo {:.0f}%", "{} dimensions"


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a choice and statistic that has an AUC; the choice says what differs from the defaults."""
    found = section(document, "halo", "sensitivity")
    usual = [_most_common([item.get(key) for item in found]) for key in ("rho", "eta", "support_size")]
    return [
        {
            "choice": _choice(item, *usual),
            "statistic": STATISTICS.get(item["statistic"], item["statistic"]),
            "auc": item["auc"]["value"],
            "low": item["auc"].get("low"),
            "high": item["auc"].get("high"),
            "ratio": (item.get("ratio") or {}).get("value"),
            "same": item.get("halo_jaccard_with_default"),
        }
        for item in found
        if (item.get("auc") or {}).get("value") is not None
    ]


def _most_common(values: list[Any]) -> Any:
    return max(set(values), key=values.count)


def _choice(item: dict[str, Any], rho: Any, eta: Any, support: Any) -> str:
    parts = []
    if item.get("rho") != rho:
        parts.append(_OTHER_RHO.format(100 * item["rho"]))
    if item["eta"] != 0.10:
        parts.append(_OTHER_ETA.format(100 * item["eta"]))
    if item.get("support_size") != support:
        parts.append(_OTHER_SUPPORT.format(item["support_size"]))
    return ", ".join(parts) or "as defined"


def draw(document: Document) -> Any:
    """Points with intervals around one half, a line a choice."""
    alt, found = altair(), rows(document)
    chart = alt.Chart(data(found, "sensitivity"))
    choices = list(dict.fromkeys(["as defined", *(row["choice"] for row in found)]))
    x = alt.X("auc:Q", title="AUC, halo over rest", scale=alt.Scale(zero=False, padding=14))
    y = alt.Y("choice:N", title=None, sort=choices, axis=alt.Axis(labelLimit=180))
    scale = alt.Scale(domain=list(STATISTICS.values()), range=[HALO, CORE, REST])
    color = alt.Color("statistic:N", scale=scale, legend=alt.Legend(columns=3))
    offset = alt.YOffset("statistic:N", sort=list(STATISTICS.values()))
    tips = ["choice:N", "statistic:N"]
    tips += [alt.Tooltip(f"{key}:Q", format=".3f") for key in ("auc", "low", "high")]
    tips += [
        alt.Tooltip("ratio:Q", title="ratio of medians", format=".2f"),
        alt.Tooltip("same:Q", title="halo shared with the default", format=".2f"),
    ]
    known = chart.transform_filter("isValid(datum.low)")
    return whole(
        constant("x", 0.5),
        known.mark_rule(strokeWidth=2).encode(
            x=alt.X("low:Q"), x2="high:Q", y=y, yOffset=offset, color=color
        ),
        chart.mark_circle(size=70, opacity=1).encode(x=x, y=y, yOffset=offset, color=color, tooltip=tips),
        height=60 + 48 * len(choices),
    )


FIGURE = Figure(
    "sensitivity",
    75,
    "findings",
    "Does the answer hang on how the halo is defined?",
    "Look at whether all points stand on one side of the dotted half: where they do not, the answer is the "
    "definition's. Neither matched nor corrected: no control, only a comparison of choices.",
    draw,
)
