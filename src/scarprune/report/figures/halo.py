"""Redundancy of the halo with the core, over that of its controls."""

from typing import Any

from scarprune.report.draw import altair, constant, data, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import HALO, REST

CONTROLS = {
    "sampled": "sampled channels",
    "matched": "like loss proxy",
    "random_core": "random core",
}
VARIANTS = {"plain": "plain", "token_weighted": "token-weighted", "without_first_4": "without first 4"}


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a variant and control: the ratio and its interval."""
    found = []
    for variant, parts in section(document, "halo", "controls", "variants").items():
        for control, word in CONTROLS.items():
            ratio = (parts.get(control) or {}).get("ratio") or {}
            if ratio.get("value"):
                numbers = {key: ratio.get(key) for key in ("value", "low", "high")}
                found.append({"control": word, "variant": VARIANTS.get(variant, variant), **numbers})
    return found


def draw(document: Document) -> Any:
    """Points with intervals around 1."""
    alt, found = altair(), rows(document)
    chart = alt.Chart(data(found, "halo"))
    x = alt.X(
        "value:Q", title="redundancy, halo ÷ control", scale=alt.Scale(type="log", nice=False, padding=14)
    )
    y = alt.Y("control:N", title=None, sort=list(CONTROLS.values()), axis=alt.Axis(labelLimit=180))
    scale = alt.Scale(domain=list(VARIANTS.values()), range=[HALO, "#3c8d80", REST])
    color = alt.Color("variant:N", scale=scale)
    offset = alt.YOffset("variant:N", sort=list(VARIANTS.values()))
    tips = [
        "control:N",
        "variant:N",
        *(alt.Tooltip(f"{k}:Q", format=".2f") for k in ("value", "low", "high")),
    ]
    return whole(
        constant("x", 1),
        chart.mark_rule(strokeWidth=2).encode(
            x=alt.X("low:Q"), x2="high:Q", y=y, yOffset=offset, color=color
        ),
        chart.mark_circle(size=80, opacity=1).encode(x=x, y=y, yOffset=offset, color=color, tooltip=tips),
        height=200,
    )


FIGURE = Figure(
    "halo",
    60,
    "findings",
    "Is the halo redundant with the core, beyond its controls?",
    "Look at whether an interval clears the dotted line at 1: channels of like loss proxy are the control "
    "that counts, since large channels look redundant with each other wherever they write.",
    draw,
)
