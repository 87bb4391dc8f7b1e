"""Whether blocks can be read by a model at all."""

import numpy as np

from scarprune.errors import TextError
from scarprune.text.blocks import Blocks


def check_fits(blocks: Blocks, vocab_size: int, context: int | None) -> None:
    """Check ids against the vocabulary and lengths against the context; None is a context without end.

    Raises:
        TextError: an id outside 0 .. vocab_size - 1, or a block longer than ``context``.
    """
    longest = int(blocks.lengths.max(initial=0))
    if context is not None and longest > context:
        raise TextError(
            f"The blocks are up to {longest} tokens long, but the model's context is {context} tokens.",
            hint=f"Use --length {context} or less.",
        )
    is_text = np.arange(blocks.ids.shape[1]) < blocks.lengths[:, None]
    outside = is_text & ((blocks.ids < 0) | (blocks.ids >= vocab_size))
    if outside.any():
        block, position = (int(index) for index in np.argwhere(outside)[0])
        raise TextError(
            f"Block {block} holds the token id {blocks.ids[block, position]}, but the model's vocabulary has "
            f"{vocab_size} ids.",
            hint="Use the model's own tokenizer.",
        )
