"""Token ids that were made elsewhere: ``.npy`` files."""

from pathlib import Path

import numpy as np

from scarprune.errors import TextError
from scarprune.text.source import open_source


def read_ids(path: Path) -> np.ndarray:
    """The int64 ids [n, T] of a ``.npy`` file, plain or compressed; nothing is unpickled.

    Raises:
        TextError: missing, damaged, not two-dimensional integers, negative, or rows under two tokens.
    """
    with open_source(path) as file:
        try:
            ids = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, EOFError, OSError, MemoryError) as error:
            raise TextError(f"{path} is damaged or no .npy file of numbers: {error}.") from error
    if ids.ndim != 2 or ids.dtype.kind not in "iu":
        raise TextError(
            f"{path} holds {ids.dtype} numbers {list(ids.shape)}, not token ids [blocks, tokens]."
        )
    if len(ids) == 0 or ids.shape[1] < 2:
        raise TextError(f"{path} holds {len(ids)} blocks of {ids.shape[1]} tokens: nothing to predict.")
    largest = np.iinfo(np.int32).max
    if ids.min() < 0 or ids.max() > largest:
        bad = int(ids.min()) if ids.min() < 0 else int(ids.max())
        raise TextError(f"{path} holds {bad}, which is no token id.")
    return ids.astype(np.int64)
