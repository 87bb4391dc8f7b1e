"""Loss of a pruned model against how much of the core was cut."""

from typing import Any

from scarprune.report.draw import altair, data, score_words, whole
from scarprune.report.figure import AbsentError, Document, Figure, section
from scarprune.report.theme import SCORES


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a score and sparsity."""
    return [
        {
            "score": score_words(item["score"]),
            "sparsity": item["sparsity"],
            "share": item["share_of_core_pruned"],
            "excess": item["excess_nats"],
            "error": item.get("standard_error"),
        }
        for item in section(document, "hit_rate")
        if item.get("share_of_core_pruned") is not None and item.get("excess_nats") is not None
    ]


def draw(document: Document) -> Any:
    """A line a score over the share of the core that it cuts; a point a sparsity."""
    alt, found = altair(), rows(document)
    if not found:
        raise AbsentError("Not drawn: no pruned model was measured.")
    chart = alt.Chart(data(found, "hit_rate"))
    names = list(dict.fromkeys(row["score"] for row in found))
    color = alt.Color(
        "score:N", scale=alt.Scale(domain=names, range=[SCORES[i % 8] for i in range(len(names))])
    )
    x = alt.X("share:Q", title="share of the core that was cut", axis=alt.Axis(format="%"))
    y = alt.Y("excess:Q", title="excess loss, nats per token")
    tips = [
        "score:N",
        alt.Tooltip("sparsity:Q", format=".0%"),
        alt.Tooltip("share:Q", title="core cut", format=".1%"),
        alt.Tooltip("excess:Q", title="excess, nats", format=".3f"),
        alt.Tooltip("error:Q", title="standard error", format=".3f"),
    ]
    return whole(
        chart.mark_line(strokeWidth=1, opacity=0.5).encode(x=x, y=y, color=color, order="sparsity:Q"),
        chart.mark_circle(size=70, opacity=0.9).encode(x=x, y=y, color=color, tooltip=tips),
    )


FIGURE = Figure(
    "hit_rate",
    140,
    "validation",
    "Does cutting the core explain the loss?",
    "Look at points of one height: if the core explained the loss, scores that cut the same share of it "
    "would lose the same.",
    draw,
)
