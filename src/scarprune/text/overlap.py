"""How much of one text is in another."""

import numpy as np
import numpy.typing as npt

from scarprune.text.blocks import Blocks


def overlap(a: Blocks, b: Blocks, n: int = 13) -> float:
    """Share of the token ``n``-grams of ``b`` that occur in ``a``; 0 where ``b`` has none.

    An n-gram lies within the text of one block and leaves out a BOS in front. Occurrences are counted each,
    and compared by a 64-bit hash: a false hit among a million n-grams has a chance of one in ten million.
    """
    theirs, ours = _ngrams(b, n), _ngrams(a, n)
    if not len(theirs):
        return 0.0
    return float(np.isin(theirs, ours).mean())


def _ngrams(blocks: Blocks, n: int) -> npt.NDArray[np.uint64]:
    """Hashes uint64 of all n-grams: polynomials in an odd number, of scrambled ids."""
    ids = blocks.ids[:, int(blocks.bos) :]
    windows = ids.shape[1] - n + 1
    if windows < 1:
        return np.empty(0, dtype=np.uint64)
    scrambled = _scramble(ids.astype(np.uint64))
    hashes = np.zeros((len(ids), windows), dtype=np.uint64)
    for offset in range(n):
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes += scrambled[:, offset : offset + windows]
    inside = np.arange(windows) + n + int(blocks.bos) <= blocks.lengths[:, None]
    return hashes[inside]


def _scramble(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finalizer of SplitMix64: each bit of the input moves half of the output's."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
