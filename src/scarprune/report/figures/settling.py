"""How much text the core needs before it settles."""

from typing import Any

from scarprune.report.draw import altair, data, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import CORE, REST

_APART, _GROWING = "two disjoint texts", "so far against all of it"


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a length of text and curve."""
    settling = section(document, "stability", "settling")
    found = []
    for what, tokens, values in (
        (_GROWING, "tokens", "jaccard_with_all"),
        (_APART, "disjoint_tokens", "disjoint_jaccard"),
    ):
        for length, value in zip(settling[tokens], settling[values], strict=True):
            if value is not None:
                found.append({"what": what, "tokens": length, "jaccard": value})
    return found


def draw(document: Document) -> Any:
    """Two curves over tokens."""
    alt = altair()
    chart = alt.Chart(data(rows(document), "settling"))
    color = alt.Color("what:N", scale=alt.Scale(domain=[_APART, _GROWING], range=[CORE, REST]))
    return whole(
        chart.mark_line(strokeWidth=2.2, point=alt.OverlayMarkDef(size=60, opacity=1)).encode(
            x=alt.X("tokens:Q", title="tokens", axis=alt.Axis(format="~s")),
            y=alt.Y("jaccard:Q", title="Jaccard of the cores, median", scale=alt.Scale(domain=[0, 1])),
            color=color,
            tooltip=["what:N", alt.Tooltip("tokens:Q", format=","), alt.Tooltip("jaccard:Q", format=".3f")],
        ),
        height=240,
    )


FIGURE = Figure(
    "settling",
    90,
    "findings",
    "How much text the core needs",
    "Look at the red line, two texts that share nothing; the grey one ends at 1 whatever happens, because "
    "the text so far is part of all of it.",
    draw,
)
