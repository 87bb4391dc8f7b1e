"""How large a profile is, in memory and as a file, counted from the names of its sums."""

from collections.abc import Sequence

from scarprune.profile.statistics.statistic import statistics
from scarprune.profile.sums import (
    ACTIVATION_GROUPS,
    BANDED,
    BANDED_LABELLED,
    BANDS,
    BLOCK_LABELLED,
    DOUBLE,
    GROUP,
    GROUP_LABELLED,
    GROUPS,
    OF_CORE_AND_INPUT,
    WEIGHT_NORMS,
)

_WHILE_MEASURED = 8 + 4  # float64 totals, float32 sums of the batch at hand
_SUPPORT_SHARE = 16  # of the hidden size: the core's write support (profile/weights.py)


def labelled_rows() -> dict[str, int]:
    """Numbers a channel of each sum that depends on the labels."""
    return {
        **dict.fromkeys(BANDED_LABELLED, len(BANDS)),
        **dict.fromkeys(BLOCK_LABELLED, 1),
        **dict.fromkeys(GROUP_LABELLED, GROUPS),
    }


def shared_rows() -> dict[str, int]:
    """Numbers a channel of each sum that the activations alone give."""
    return {
        **dict.fromkeys(BANDED, len(BANDS)),
        **dict.fromkeys(GROUP, ACTIVATION_GROUPS),
        **{item.name: 1 for item in statistics()},
    }


def sums_bytes(widths: Sequence[int], kinds: int = 1) -> int:
    """Memory of pass 1's sums for sites of these widths, with so many kinds of labels."""
    rows = kinds * sum(labelled_rows().values()) + sum(shared_rows().values())
    return _WHILE_MEASURED * rows * sum(widths)


def cross_bytes(widths: Sequence[int], cores: Sequence[int]) -> int:
    """Memory of pass 2's sums: m x k a site, k the size of its core."""
    return _WHILE_MEASURED * sum(m * k for m, k in zip(widths, cores, strict=True))


def file_bytes(widths: Sequence[int], cores: Sequence[int], hidden: int, gated: bool, kinds: int = 1) -> int:
    """Tensors of a saved profile with redundancy and without extra passes; the header is some kilobytes."""
    sums = {name: kinds * rows for name, rows in labelled_rows().items()} | shared_rows()
    each = sum(rows * (8 if name in DOUBLE else 4) for name, rows in sums.items())
    others = (*WEIGHT_NORMS, *OF_CORE_AND_INPUT)
    each += 4 * sum(gated or "gate" not in name for name in others)
    inputs = len(widths) * (4 * hidden + 8 * max(1, round(hidden / _SUPPORT_SHARE)))
    return each * sum(widths) + 8 * sum(cores) + inputs
