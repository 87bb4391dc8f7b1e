"""Numbers as people read them; a display never rounds to 0 or 100% what is neither."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scarprune.stats.summary import Spread


def percent(share: float, digits: int = 1) -> str:
    """0.5 -> ``50.0%``."""
    shown = f"{100 * share:.{digits}f}"
    least = 10.0**-digits
    if share > 0 and float(shown) == 0:
        return f"<{least:.{digits}f}%"
    if share < 1 and float(shown) == 100:
        return f">{100 - least:.{digits}f}%"
    return f"{shown}%"


def median_and_range(shares: "Spread") -> str:
    """``19.9% (median; 6.7% to 74.9%)``."""
    if shares.median is None or shares.min is None or shares.max is None:
        return "no known share"
    return f"{percent(shares.median)} (median; {percent(shares.min)} to {percent(shares.max)})"


def size(count: int) -> str:
    """Bytes in the units of files: ``14.7 MB``."""
    for unit, name in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.{1 if count < 100 * unit else 0}f} {name}"
    return f"{count} bytes"


def parameters(count: int) -> str:
    """A number of parameters: ``7.34M``."""
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= unit:
            return f"{count / unit:.2f}{name}"
    return str(count)


def change(before: int, after: int) -> str:
    """How much smaller: ``-42%``."""
    return f"{100 * (after - before) / before:+.0f}%" if before else ""


def with_error(value: float, error: float | None, digits: int = 3) -> str:
    """A number and its standard error, where there is one: ``1.574 ± 0.012``."""
    return f"{value:.{digits}f}" if error is None else f"{value:.{digits}f} ± {error:.{digits}f}"


def widths(before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """Channels per site before and after: ``1024 -> 512 in each of 6 sites``, or the range."""
    return f"{_range(before)} -> {_range(after)} channels in each of {len(after)} sites"


def bar(share: float, width: int) -> str:
    """A bar of ``share`` of ``width`` characters, at least one where there is anything."""
    return "█" * max(1 if share > 0 else 0, round(share * width))


def _range(numbers: Mapping[str, int]) -> str:
    low, high = min(numbers.values()), max(numbers.values())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def shorten(value: float) -> str:
    """A perplexity: ``30.49``, ``1,234``, ``2.2e+05``."""
    if value >= 1e5:
        return f"{value:.1e}"
    return f"{value:,.0f}" if value >= 1e3 else f"{value:.2f}"
