"""Loss by sparsity, for every score and both protocols."""

from typing import Any

from scarprune.report.draw import altair, data, score_words, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import SCORES


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a protocol, score and sparsity."""
    keys = ("sparsity", "perplexity", "excess_nats", "standard_error", "share_of_core_pruned")
    return [
        {
            "protocol": item["protocol"],
            "score": score_words(item["score"]),
            **{key: item.get(key) for key in keys},
        }
        for item in section(document, "pruning")
        if item.get("excess_nats") is not None
    ]


def draw(document: Document) -> Any:
    """A line a score; a menu of protocols."""
    alt, found = altair(), rows(document)
    chart = alt.Chart(data(found, "pruning"))
    names = list(dict.fromkeys(row["score"] for row in found))
    protocols = list(dict.fromkeys(row["protocol"] for row in found))
    bind = alt.binding_select(
        options=protocols, labels=[_WORDS.get(p, p) for p in protocols], name="Protocol "
    )
    menu = alt.param(name="protocol", value=protocols[0], bind=bind)
    scale = alt.Scale(domain=names, range=[SCORES[i % len(SCORES)] for i in range(len(names))])
    tips = [
        "score:N",
        "protocol:N",
        alt.Tooltip("sparsity:Q", format=".0%"),
        alt.Tooltip("perplexity:Q", format=",.2f"),
        alt.Tooltip("excess_nats:Q", title="excess, nats", format=".3f"),
        alt.Tooltip("standard_error:Q", title="standard error", format=".3f"),
        alt.Tooltip("share_of_core_pruned:Q", title="core cut", format=".1%"),
    ]
    line = chart.transform_filter("datum.protocol === protocol").mark_line(
        strokeWidth=1.8, point=alt.OverlayMarkDef(size=46, opacity=1)
    )
    return whole(
        line.encode(
            x=alt.X("sparsity:Q", title="channels removed", axis=alt.Axis(format="%")),
            y=alt.Y("excess_nats:Q", title="excess loss, nats per token"),
            color=alt.Color("score:N", scale=scale),
            tooltip=tips,
        ),
        height=340,
    ).add_params(menu)


_WORDS = {"ours": "this project's", "paper": "the paper's"}

FIGURE = Figure(
    "pruning",
    180,
    "reproduction",
    "What each score costs",
    "Look at the order of the lines, and whether it is the same under the other protocol.",
    draw,
)
