"""What a figure declares, and the list of all of them."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from scarprune.errors import ArgumentError, ScarpruneError
from scarprune.report import figures, theme

Kind = Literal["findings", "validation", "trajectory", "reproduction", "sweep"]
Document = Mapping[str, Any]

WIDTH = 620  # of figures that have no page to fill


class AbsentError(ScarpruneError):
    """What a figure draws was not measured; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A way to draw a part of an artifact.

    Attributes:
        name: of the function in ``sp.plots``, of its place on the page and of its file.
        order: where on the page it stands.
        artifact: which kind of JSON it is drawn from.
        title: what it shows, in a few words.
        caption: one sentence on what to look at.
        draw: document -> Altair chart; raises AbsentError where there is nothing to draw.
    """

    name: str
    order: int
    artifact: Kind
    title: str
    caption: str
    draw: Callable[[Document], Any]

    def spec(self, document: Document, *, width: int | None = None) -> dict[str, Any]:
        """The figure as a Vega-Lite specification; as wide as the page unless ``width`` is given.

        Raises:
            AbsentError: what it draws was not measured.
        """
        chart = self.draw(document)
        made: dict[str, Any] = chart.to_dict()
        made["config"] = theme.config()
        made["autosize"] = {"type": "fit-x", "contains": "padding"}
        made["description"] = f"{self.title}. {self.caption}"
        if width is not None:
            made["width"] = width
        return made


@cache
def all_figures() -> tuple[Figure, ...]:
    """Every figure in the order of the page: each ``FIGURE`` of a file in ``report/figures``."""
    found = [
        importlib.import_module(f"{figures.__name__}.{module.name}").FIGURE
        for module in pkgutil.iter_modules(figures.__path__)
    ]
    return tuple(sorted(found, key=lambda figure: figure.order))


def find_figure(name: str) -> Figure:
    """The figure called ``name``.

    Raises:
        ArgumentError: there is none.
    """
    for figure in all_figures():
        if figure.name == name:
            return figure
    known = ", ".join(figure.name for figure in all_figures())
    raise ArgumentError(f"There is no figure called {name!r}.", hint=f"Figures: {known}.")


def section(document: Document, *path: str) -> Any:
    """What lies at ``path`` in ``document``.

    Raises:
        AbsentError: nothing does, or null; the reason is that of the nearest ``missing``.
    """
    at: Any = document
    for key in path:
        inside = at.get(key)
        if not inside:
            reason = (at.get("missing") or {}).get(key) or f"nothing is known of {key.replace('_', ' ')} here"
            raise AbsentError(f"Not drawn: {reason.rstrip('.')}.")
        at = inside
    return at
