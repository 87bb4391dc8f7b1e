"""Blocks that nothing is learned from, to judge by."""

import numpy as np

from scarprune.errors import TextError
from scarprune.text.blocks import Blocks

_HELD_OUT = 16  # one block of so many


def hold_out(blocks: Blocks, most: int | None = None) -> tuple[Blocks, Blocks]:
    """Blocks to learn from, and the last sixteenth of the text (at least one block, up to ``most``).

    A run at the end and no blocks in between: those share their documents with what is learned from, and
    praise a fit for what it has only remembered.

    Raises:
        TextError: fewer than two blocks.
    """
    if len(blocks) < 2:
        raise TextError(
            f"{len(blocks)} block of text is too little: at least 2 are needed, one of them to judge by.",
            hint="Use more text or shorter blocks (--length).",
        )
    count = max(1, len(blocks) // _HELD_OUT)
    first = len(blocks) - (count if most is None else min(count, most))
    return blocks.take(np.arange(first)), blocks.take(np.arange(first, len(blocks)))
