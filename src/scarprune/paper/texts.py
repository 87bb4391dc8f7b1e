"""How the code of arXiv 2604.23475 reads text: lines by themselves, and one long string (``method`` 11)."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from scarprune.errors import TextError
from scarprune.models.context import context_length
from scarprune.text.blocks import Blocks
from scarprune.text.corpus import read_documents
from scarprune.text.pieces import cut_single
from scarprune.text.tokens import tokenize

PROTOCOL = "paper"


@dataclass(frozen=True, slots=True)
class PaperReading:
    """Sizes of the protocol; the defaults are the paper's.

    Attributes:
        texts: lines to measure on, from the beginning.
        length: tokens to which each is truncated.
        redundancy_texts: of these, how many the redundancy is measured on.
        redundancy_length: and truncated to what.
        block: tokens of a block that perplexity is judged on.
        blocks: how many of them; None for the whole text.
    """

    texts: int = 64
    length: int = 512
    redundancy_texts: int = 8
    redundancy_length: int = 256
    block: int = 2048
    blocks: int | None = None

    def within(self, model: Any) -> "PaperReading":
        """The same with no block longer than the model's context."""
        context = context_length(model.config) or self.block
        return PaperReading(
            self.texts,
            min(self.length, context),
            self.redundancy_texts,
            min(self.redundancy_length, context),
            min(self.block, context),
            self.blocks,
        )


def lines_of(source: str, tokenizer: Any, field: str = "text") -> list[str]:
    """The lines of a text that hold more than white space, headings included.

    A row of a data set that is one line is taken as it is, with its line end, as the paper's code takes the
    rows of WikiText-2; the lines of longer documents come without.

    Raises:
        TextError: unreadable, token ids instead of text, or no tokenizer.
    """
    if tokenizer is None:
        raise TextError(
            "The paper's protocol reads text, and the model has no tokenizer.",
            hint="Use a model folder that has one.",
        )
    documents = read_documents(source, field=field, tokenizer=tokenizer)
    rows = [[text] if "\n" not in text.rstrip("\n") else text.split("\n") for text in documents]
    return [line for row in rows for line in row if line.strip()]


def paper_texts(source: str, tokenizer: Any, count: int, length: int, field: str = "text") -> Blocks:
    """The first ``count`` lines, each one block of at most ``length`` tokens, special tokens as they come.

    Lines of one token predict nothing and are left out.

    Raises:
        TextError: unreadable, or no line has two tokens.
    """
    lines = lines_of(source, tokenizer, field)[:count]
    pieces = cut_single(tokenize(lines, tokenizer, special=True), length, first_target=1)
    if not len(pieces):
        raise TextError(f"None of the first {count} lines of {source} has two tokens.")
    return Blocks(pieces.padded(), pieces.lengths, pieces.bytes, PROTOCOL, source, pieces.documents)


def paper_blocks(
    source: str, tokenizer: Any, length: int, count: int | None = None, field: str = "text"
) -> Blocks:
    """The lines joined by a blank line, cut to blocks of ``length``; the last short one is kept.

    Raises:
        TextError: unreadable, or too short to predict anything.
    """
    joined = "\n\n".join(lines_of(source, tokenizer, field))
    (tokens,) = tokenize([joined], tokenizer, special=True)
    starts = np.arange(0, len(tokens.ids), length)
    lengths = np.minimum(len(tokens.ids) - starts, length)
    kept = np.flatnonzero(lengths > 1)[:count]
    if not len(kept):
        raise TextError(f"{source} has nothing to predict: one token.")
    ids = np.zeros((len(kept), length), dtype=np.int64)
    for row, block in enumerate(kept):
        ids[row, : lengths[block]] = tokens.ids[starts[block] : starts[block] + lengths[block]]
    return Blocks(ids, lengths[kept].astype(np.int64), None, PROTOCOL, source)
