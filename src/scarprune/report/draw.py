"""The pieces that several figures are made of; Altair is imported here and only when something is drawn."""

from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

from scarprune.errors import ScarpruneError
from scarprune.report.figure import AbsentError
from scarprune.report.theme import INK

HEIGHT = 300
Rows = list[dict[str, Any]]


def altair() -> ModuleType:
    """The library that draws.

    Raises:
        ScarpruneError: it is not installed.
    """
    try:
        import altair
    except ImportError as error:
        raise ScarpruneError(
            "Drawing figures needs Altair, which is not installed.", hint='pip install "scarprune[report]"'
        ) from error
    return altair


def data(rows: Rows, name: str) -> Any:
    """``rows`` as inline data called ``name``.

    Raises:
        AbsentError: there are none.
    """
    if not rows:
        raise AbsentError("Not drawn: there is no number to show.")
    return altair().Data(values=rows, name=name)


def whole(*layers: Any, height: int = HEIGHT) -> Any:
    """Layers on each other, as wide as the page."""
    return altair().layer(*layers).properties(width="container", height=height)


def constant(axis: str, value: float, *, dash: Sequence[int] = (3, 3)) -> Any:
    """A thin line across the figure at ``value`` of ``axis``."""
    alt = altair()
    mark = alt.Chart(alt.Data(values=[{"at": value}])).mark_rule(
        color=INK, strokeDash=list(dash), opacity=0.7
    )
    return mark.encode(**{axis: alt.datum(value)})


def label(text: str, *, x: Any = None, y: Any = None, **looks: Any) -> Any:
    """Words in the figure; ``x`` and ``y`` are values of the axes, or alt.value of pixels."""
    alt = altair()
    mark = alt.Chart(alt.Data(values=[{}])).mark_text(text=text, color=INK, fontSize=11, **looks)
    places = {"x": x, "y": y}
    return mark.encode(
        **{k: alt.datum(v) if isinstance(v, int | float) else v for k, v in places.items() if v is not None}
    )


def site_menu(names: Iterable[str]) -> Any:
    """A menu of sites, by name, that filters what says ``datum.site === site``."""
    alt, options = altair(), list(names)
    first = options[len(options) // 2]
    return alt.param(name="site", value=first, bind=alt.binding_select(options=options, name="Site "))


def decades(*of: int) -> list[float]:
    """Ticks for a logarithmic axis: ``of`` (1, or 1 and 3) times each power of ten."""
    return [float(f"{first}e{power}") for power in range(-15, 9) for first in of]


def ranged(alt: Any, field: str, title: str, **given: Any) -> Any:
    """A quantitative x channel on a logarithmic scale."""
    return alt.X(f"{field}:Q", title=title, scale=alt.Scale(type="log", **given))


def score_words(name: str) -> str:
    """A score's name as people say it."""
    known = {
        "scar_prot": "SCAR-Prot",
        "scar_conn": "SCAR-Conn",
        "wanda": "Wanda",
        "random_core": "random, core kept",
    }
    return known.get(name, name.replace("_", " "))
