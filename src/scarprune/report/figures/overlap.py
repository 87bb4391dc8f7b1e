"""The core beside the top of every other score, by layer."""

from typing import Any

from scarprune.report.draw import altair, data, score_words, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import CORE, INK, PAPER


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a score and site: Jaccard, that of chance, and rank correlation."""
    layers = {site["name"]: site["layer"] for site in document["sites"]}
    return [
        {
            "score": f"{score_words(score)}",
            "site": site["name"],
            "layer": layers[site["name"]],
            "jaccard": site["jaccard"],
            "chance": site["chance_jaccard"],
            "spearman": site["spearman"],
        }
        for score, found in section(document, "explanations", "scores").items()
        for site in found["sites"]
        if site["jaccard"] is not None
    ]


def draw(document: Document) -> Any:
    """A cell a score and layer, darker where the two share more."""
    alt, found = altair(), rows(document)
    chart = alt.Chart(data(found, "overlap"))
    order = alt.EncodingSortField(field="jaccard", op="median", order="descending")
    y = alt.Y("score:N", sort=order, title=None, axis=alt.Axis(labelLimit=170, domain=False, ticks=False))
    x = alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0))
    shade = alt.Color(
        "jaccard:Q",
        scale=alt.Scale(domain=[0, 1], range=[PAPER, CORE], interpolate="lab"),
        legend=alt.Legend(title="Jaccard", gradientLength=140, format=".1f"),
    )
    tips = [alt.Tooltip("score:N"), alt.Tooltip("site:N")]
    tips += [alt.Tooltip(f"{key}:Q", format=".3f") for key in ("jaccard", "chance", "spearman")]
    scores = len({row["score"] for row in found})
    layers = [chart.mark_rect(stroke=PAPER, strokeWidth=1).encode(x=x, y=y, color=shade, tooltip=tips)]
    if len({row["layer"] for row in found}) <= 12:
        dark = alt.condition("datum.jaccard > 0.5", alt.value(PAPER), alt.value(INK))
        layers.append(
            chart.mark_text(fontSize=10).encode(
                x=x, y=y, text=alt.Text("jaccard:Q", format=".2f"), color=dark
            )
        )
    return whole(*layers, height=max(120, 24 * scores))


FIGURE = Figure(
    "overlap",
    50,
    "findings",
    "What else would have found the core?",
    "Look for rows of full colour: the first channels of those scores are the core; two random sets share "
    "about half a percent.",
    draw,
)
