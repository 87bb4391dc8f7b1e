"""The report's figures as Altair charts, for notebooks: ``sp.plots.concentration(findings)``.

Each function takes the JSON of an artifact, as ``scarprune.analyze`` returns it or as read from its file.
"""

from typing import Any

from scarprune.errors import ScarpruneError
from scarprune.report.figure import all_figures, find_figure


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    try:
        return find_figure(name).draw
    except ScarpruneError as error:
        raise AttributeError(str(error)) from error


def __dir__() -> list[str]:
    return [figure.name for figure in all_figures()]
