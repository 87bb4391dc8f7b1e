"""Agreement of each checkpoint's core with the final one."""

from typing import Any

from scarprune.report.draw import altair
from scarprune.report.figure import Document, Figure
from scarprune.report.figures.trajectory import over_steps
from scarprune.report.theme import CORE, HALO, REST


def draw(document: Document) -> Any:
    """Jaccard and rank correlation with the final checkpoint, and Jaccard with activation power."""
    alt = altair()
    y = alt.Y("median:Q", title="agreement, median over sites")
    keys = ["jaccard_with_final", "spearman_with_final", "jaccard_activation"]
    return over_steps(document, "trajectory_overlap", keys, y, [CORE, HALO, REST])


FIGURE = Figure(
    "trajectory_overlap",
    160,
    "trajectory",
    "When the final core is in place",
    "Look at when the red line leaves chance: from there on the channels that end up in the core "
    "already lead.",
    draw,
)
