"""Groups of blocks: the resampling units of every interval."""

import numpy as np

from scarprune.profile.sums import GROUPS


def assign_groups(count: int, documents: np.ndarray | None) -> np.ndarray:
    """The group of each of ``count`` blocks: 8 contiguous runs, int64 [count], ascending.

    Where there are enough documents, a run ends where a document does, so that none spans two groups:
    ``documents`` [count, 2] holds the first and the last document of each block.
    """
    equal = np.arange(count) * GROUPS // max(count, 1)
    if documents is None or count < GROUPS:
        return equal
    # A run may begin at block b where nothing of the block before it goes on.
    allowed = 1 + np.flatnonzero(documents[1:, 0] > documents[:-1, 1])
    starts: list[int] = []
    for group in range(1, GROUPS):
        later = allowed[allowed > (starts[-1] if starts else 0)]
        if len(later) < GROUPS - group:
            return equal
        room = later[: len(later) - (GROUPS - group) + 1]  # leave a place for each group after this one
        starts.append(int(room[np.argmin(np.abs(room - group * count / GROUPS))]))
    groups = np.searchsorted(np.array(starts), np.arange(count), side="right")
    # Documents so uneven that a group would be under a third of its share resample worse than plain runs.
    smallest = np.bincount(groups, minlength=GROUPS).min()
    return equal if smallest * 3 < count // GROUPS else groups
