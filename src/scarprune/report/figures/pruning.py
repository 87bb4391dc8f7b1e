"""Loss by sparsity, for every score and both protocols."""

from typing import Any

from scarprune.report.draw import altair, data, score_words, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import REST, SCORES

# More colours than these cannot be told apart; the other scores are there to be hovered.
_NAMED = ("loss_proxy", "scar_prot", "activation_power", "wanda", "paper_wanda", "random", "random_core")
_OTHER = "another score"


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a protocol, score and sparsity."""
    keys = ("sparsity", "perplexity", "excess_nats", "standard_error", "share_of_core_pruned")
    return [
        {
            "protocol": item["protocol"],
            "score": score_words(item["score"]),
            "shown": score_words(item["score"]) if item["score"] in _NAMED else _OTHER,
            **{key: item.get(key) for key in keys},
        }
        for item in section(document, "pruning")
        if item.get("excess_nats") is not None
    ]


def draw(document: Document) -> Any:
    """A line a score, the best known in colour; a menu of protocols."""
    alt, found = altair(), rows(document)
    chart = alt.Chart(data(found, "pruning"))
    shown = [score_words(name) for name in _NAMED]
    names = [*(name for name in shown if any(row["shown"] == name for row in found)), _OTHER]
    colors = [color for color in SCORES if color != REST][: len(names) - 1]
    protocols = list(dict.fromkeys(row["protocol"] for row in found))
    bind = alt.binding_select(
        options=protocols, labels=[_WORDS.get(p, p) for p in protocols], name="Protocol "
    )
    menu = alt.param(name="protocol", value=protocols[0], bind=bind)
    scale = alt.Scale(domain=names, range=[*colors, REST])
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
            color=alt.Color("shown:N", scale=scale, title="score"),
            detail="score:N",
            opacity=alt.condition(f"datum.shown === '{_OTHER}'", alt.value(0.35), alt.value(1)),
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
