"""A few numbers that stand for many."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Spread:
    """Median and range over sites of what could be computed; None where no site gave a number."""

    median: float | None
    min: float | None
    max: float | None

    def as_json(self) -> dict[str, float | None]:
        """The keys of every summary over sites: ``median``, ``min``, ``max``."""
        return asdict(self)


def spread(values: Iterable[float | None]) -> Spread:
    """Median, minimum and maximum of ``values``, leaving out None."""
    known = [value for value in values if value is not None]
    if not known:
        return Spread(None, None, None)
    return Spread(float(np.median(known)), float(min(known)), float(max(known)))


def standard_error(values: np.ndarray) -> float | None:
    """Standard deviation (n - 1) of ``values`` [n] over root n; None for fewer than two."""
    if len(values) < 2:
        return None
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))
