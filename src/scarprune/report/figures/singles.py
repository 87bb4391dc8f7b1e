"""Loss of removing single channels: predicted against measured."""

from typing import Any

from scarprune.report.draw import altair, data, decades, ranged, score_words, whole
from scarprune.report.figure import Document, Figure, section
from scarprune.report.theme import CORE, HALO, INK, REST

_NATS = ("loss_proxy", "fisher", "block_fisher")


def rows(document: Document) -> list[dict[str, Any]]:
    """One row a probed channel and score in nats; only positive numbers have a logarithm."""
    columns = section(document, "singles", "channels")
    found = []
    for score in (name for name in _NATS if name in columns):
        for place, site in enumerate(columns["site"]):
            predicted, measured = columns[score][place], columns["d_nats"][place]
            if predicted and measured and predicted > 0 and measured > 0:
                facts = {
                    "site": site,
                    "channel": columns["channel"][place],
                    "stratum": columns["stratum"][place],
                }
                found.append(
                    {**facts, "score": score_words(score), "predicted": predicted, "measured": measured}
                )
    return found


def draw(document: Document) -> Any:
    """Points around the diagonal; a menu of scores."""
    alt, found = altair(), rows(document)
    chart = alt.Chart(data(found, "singles"))
    names = list(dict.fromkeys(row["score"] for row in found))
    bind = alt.binding_select(options=names, name="Score ")
    menu = alt.param(name="score", value=names[0], bind=bind)
    numbers = [row[key] for row in found for key in ("predicted", "measured")]
    ends = [{"predicted": at, "measured": at} for at in (min(numbers), max(numbers))]
    x = ranged(alt, "predicted", "predicted, nats per token")
    y = alt.Y("measured:Q", title="measured, nats per token", scale=alt.Scale(type="log"))
    x.axis, y.axis = (
        alt.Axis(format=".0e", values=decades(1, 3)),
        alt.Axis(format=".0e", values=decades(1, 3)),
    )
    strata = list(dict.fromkeys(row["stratum"] for row in found))
    order = [name for name in ("core", "halo") if name in strata]
    order += [name for name in strata if name not in order]
    range_ = [{"core": CORE, "halo": HALO}.get(name, REST) for name in order]
    tips = ["site:N", "channel:Q", "stratum:N"]
    tips += [alt.Tooltip(f"{key}:Q", format=".3g") for key in ("predicted", "measured")]
    line = alt.Chart(alt.Data(values=ends)).mark_line(color=INK, strokeDash=[3, 3], strokeWidth=1)
    dots = chart.transform_filter("datum.score === score").mark_circle(size=52, opacity=0.8)
    return whole(
        line.encode(x=x, y=y),
        dots.encode(
            x=x, y=y, color=alt.Color("stratum:N", scale=alt.Scale(domain=order, range=range_)), tooltip=tips
        ),
        height=340,
    ).add_params(menu)


FIGURE = Figure(
    "singles",
    110,
    "validation",
    "Removing one channel: predicted and measured",
    "Look at order first (do points rise together?) and then at distance from the dotted diagonal, where the "
    "prediction is right in nats; channels whose removal lowered the loss are not drawn.",
    draw,
)
