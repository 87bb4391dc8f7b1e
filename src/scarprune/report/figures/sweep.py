"""Excess loss by sparsity, for every way to prune, with intervals over seeds."""

from typing import Any

from scarprune.report.draw import altair, data, score_words, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import SCORES


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a way and sparsity that has a mean."""
    found = []
    for row in section(document, "rows"):
        excess = row["excess_nats"]
        if excess["value"] is not None:
            kept = ", core kept" if row["protect"] else ""
            found.append(
                {
                    "score": score_words(row["score"]),
                    "how": f"{row['compensate']}{kept}",
                    "sparsity": row["achieved_sparsity"],
                    "parameters": row["parameters_after"],
                    "excess": excess["value"],
                    "low": excess["low"],
                    "high": excess["high"],
                    "sd": excess["sd"],
                }
            )
    return found


def draw(document: Document) -> Any:
    """A line a way: colour for the score, dashes for compensation and protection."""
    alt, found = altair(), rows(document)
    chart = alt.Chart(data(found, "sweep"))
    names = list(dict.fromkeys(row["score"] for row in found))
    scale = alt.Scale(domain=names, range=[SCORES[i % len(SCORES)] for i in range(len(names))])
    ways = list(dict.fromkeys(row["how"] for row in found))
    legend = alt.Legend(symbolType="stroke") if len(ways) > 1 else None
    x = alt.X("sparsity:Q", title="channels removed", axis=alt.Axis(format="%"))
    color = alt.Color("score:N", scale=scale)
    dash = alt.StrokeDash("how:N", scale=alt.Scale(domain=ways), legend=legend)
    tips = ["score:N", "how:N", alt.Tooltip("sparsity:Q", format=".1%")]
    tips += [alt.Tooltip("parameters:Q", format=",")]
    tips += [alt.Tooltip(f"{key}:Q", format=".4f") for key in ("excess", "low", "high", "sd")]
    line = chart.mark_line(strokeWidth=1.8, point=alt.OverlayMarkDef(size=40, opacity=1))
    y = alt.Y("excess:Q", title="excess loss, nats per token")
    layers = [line.encode(x=x, y=y, color=color, strokeDash=dash, tooltip=tips)]
    if any(row["low"] is not None for row in found):  # two seeds are too few for an interval
        bars = chart.transform_filter("datum.low !== null").mark_rule(strokeWidth=1.2, opacity=0.6)
        layers.insert(0, bars.encode(x=x, y="low:Q", y2="high:Q", color=color, detail="how:N"))
    return whole(*layers, height=340)


FIGURE = Figure(
    "sweep",
    195,
    "sweep",
    "What each way to prune costs",
    "Look at which lines lie apart by more than their bars: 95% intervals over seeds.",
    draw,
)
