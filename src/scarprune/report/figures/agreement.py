"""How far several profiles of the model agree on the core."""

from typing import Any

from scarprune.report.draw import altair, data, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import CORE, INK, REST


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a pair of profiles."""
    found = []
    for pair in section(document, "agreement", "pairs"):
        jaccard = pair.get("jaccard") or {}
        if jaccard.get("median") is not None:
            words = f"{pair['a'] + 1} and {pair['b'] + 1}: {', '.join(pair['differ']) or 'alike'}"
            halves = {key: _median(pair.get(key)) for key in ("split_half_a", "split_half_b", "mass_caught")}
            numbers = {key: jaccard.get(key) for key in ("median", "min", "max", "chance")}
            found.append({"pair": words, **numbers, **halves})
    return found


def _median(value: Any) -> float | None:
    return value.get("median") if isinstance(value, dict) else value


def draw(document: Document) -> Any:
    """Median over sites with the range, beside chance and split halves."""
    alt, found = altair(), rows(document)
    chart = alt.Chart(data(found, "agreement"))
    y = alt.Y("pair:N", title=None, sort=None, axis=alt.Axis(labelLimit=240))
    x = alt.X("median:Q", title="Jaccard of the cores", scale=alt.Scale(domain=[0, 1]))
    keys = ("median", "min", "max", "chance", "split_half_a", "split_half_b", "mass_caught")
    tips = ["pair:N", *(alt.Tooltip(f"{key}:Q", title=key.replace("_", " "), format=".3f") for key in keys)]
    hollow = chart.mark_point(size=70, color=REST)
    return whole(
        chart.mark_rule(strokeWidth=2, opacity=0.5, color=CORE).encode(x=alt.X("min:Q"), x2="max:Q", y=y),
        chart.mark_tick(thickness=2, size=16, color=INK).encode(x="chance:Q", y=y),
        hollow.encode(x="split_half_a:Q", y=y),
        hollow.encode(x="split_half_b:Q", y=y),
        chart.mark_circle(size=90, opacity=1, color=CORE).encode(x=x, y=y, tooltip=tips),
        height=max(120, 40 * len(found)),
    )


FIGURE = Figure(
    "agreement",
    100,
    "findings",
    "Do other texts, seeds or lengths give the same core?",
    "Look at red points against the hollow ones, which are split halves of each profile alone: a pair cannot "
    "agree better than its halves do; ticks are chance.",
    draw,
)
