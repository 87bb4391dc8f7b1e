"""Sizes of memory as people write them."""

import re

from scarprune.errors import ArgumentError

_UNITS = {
    **{"b": 1, "": 1},
    **{f"{letter}ib": 1 << 10 * power for power, letter in enumerate("kmgt", 1)},
    **{f"{letter}b": 10 ** (3 * power) for power, letter in enumerate("kmgt", 1)},
}


def parse_size(size: int | str) -> int:
    """Bytes: a whole number, or text such as ``20GiB``, ``500 MB``.

    Raises:
        ArgumentError: neither, or not positive.
    """
    match = re.fullmatch(r"([0-9.]+) ?([a-z]*)", str(size).strip().lower())
    try:
        count = int(float(match[1]) * _UNITS[match[2]]) if match else 0
    except (KeyError, ValueError):
        count = 0
    if count < 1:
        raise ArgumentError(f"{size!r} is no size of memory.", hint="Write auto, or a size such as 20GiB.")
    return count
