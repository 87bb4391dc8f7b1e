"""Depth schedules: how many channels each site loses where the fraction follows its depth, not its scores.

All together lose what ``uniform`` would remove. Widths then differ by site.
"""

from collections.abc import Sequence
from fractions import Fraction


def is_schedule(allocation: str) -> bool:
    """Whether ``allocation`` names a depth schedule."""
    return allocation == "middle" or _slope(allocation) is not None


def weights(allocation: str, count: int) -> list[Fraction]:
    """What each of ``count`` sites in a row loses beside the others, per channel it has.

    ``linear:S``: 1 + S * x, x from -1 at the first site to 1 at the last, so that with S above 0 the first
    sites stay wider. ``middle``: 1, and 0 for the first tenth of the sites and the last one, which GISP
    leaves whole.
    """
    if allocation == "middle":
        return [Fraction(count // 10 <= index < max(1, count - 1)) for index in range(count)]
    slope = _slope(allocation) or Fraction(0)
    return [1 + slope * Fraction(2 * index - (count - 1), max(1, count - 1)) for index in range(count)]


def losses(widths: Sequence[int], rooms: Sequence[int], parts: Sequence[Fraction], budget: int) -> list[int]:
    """How many channels each site loses: ``budget`` in all, in proportion to part * width, at most its room.

    What is over a site's room goes to the others in the same proportion. Counted in fractions, so alike on
    every machine; of equal remainders the earlier site loses one more.
    """
    given = [Fraction(0)] * len(widths)
    open_ = [index for index, part in enumerate(parts) if part > 0]
    left = Fraction(budget)
    while open_ and left > 0:
        unit = left / sum(parts[index] * widths[index] for index in open_)
        full = [index for index in open_ if unit * parts[index] * widths[index] >= rooms[index]]
        for index in full or open_:
            given[index] = Fraction(rooms[index]) if full else unit * parts[index] * widths[index]
            left -= given[index]
        open_ = [index for index in open_ if index not in full] if full else []
    whole = [int(value) for value in given]
    rests = sorted(range(len(given)), key=lambda index: (whole[index] - given[index], index))
    for index in rests[: budget - sum(whole)]:
        whole[index] += 1
    return whole


def _slope(allocation: str) -> Fraction | None:
    """S of ``linear:S``, where it is a number from -1 to 1."""
    name, _, value = allocation.partition(":")
    try:
        slope = float(value)
    except ValueError:
        return None
    return Fraction(str(slope)) if name == "linear" and -1 <= slope <= 1 else None
