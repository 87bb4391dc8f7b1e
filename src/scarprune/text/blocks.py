"""Blocks of token ids: what every measurement reads."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scarprune.errors import ArgumentError, TextError
from scarprune.text.corpus import read_documents
from scarprune.text.draw import spread
from scarprune.text.ids import read_ids
from scarprune.text.pieces import Pieces, cut_rows
from scarprune.text.protocol import Cutting, Protocol, choose_cutting
from scarprune.text.source import kind_of


class _Unasked(int):
    """A number of blocks nobody asked for: known by identity, so that a caller's own 128 is asked for."""


DEFAULT_COUNT = _Unasked(128)


@dataclass(frozen=True)
class Blocks:
    """Token ids in blocks, in the order of the text they were taken from.

    Attributes:
        ids: int64 [n, T]; positions from ``lengths[i]`` on hold padding that nothing reads.
        lengths: int64 [n]; tokens of each block that are text.
        bytes: int64 [n], UTF-8 bytes of the text of each block's targets, or None where unknown.
        protocol: ``packed``, ``contiguous``, ``documents`` or ``tokens`` (given as ids).
        source: what the text was, as the user named it.
        documents: int64 [n, 2], index of the first and the last document in each block, or None.
        bos: whether position 0 of every block is the tokenizer's BOS.
        seed: what the blocks were drawn with.
    """

    ids: np.ndarray
    lengths: np.ndarray
    bytes: np.ndarray | None
    protocol: str
    source: str
    documents: np.ndarray | None = None
    bos: bool = False
    seed: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def targets(self) -> int:
        """Predicted tokens over all blocks: each block's tokens but its first."""
        return int(np.maximum(self.lengths - 1, 0).sum())

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the ids that are text: equal for equal token blocks, whatever their source."""
        digest = hashlib.sha256(np.ascontiguousarray(self.lengths, dtype="<i8").tobytes())
        for row, length in zip(self.ids, self.lengths, strict=True):
            digest.update(np.ascontiguousarray(row[:length], dtype="<i8").tobytes())
        return digest.hexdigest()

    def take(self, indices: np.ndarray) -> "Blocks":
        """The blocks at ``indices``, in that order."""
        return Blocks(
            ids=self.ids[indices],
            lengths=self.lengths[indices],
            bytes=None if self.bytes is None else self.bytes[indices],
            protocol=self.protocol,
            source=self.source,
            documents=None if self.documents is None else self.documents[indices],
            bos=self.bos,
            seed=self.seed,
        )


def read_blocks(
    source: str | os.PathLike[str],
    tokenizer: Any | None,
    count: int | None = DEFAULT_COUNT,
    length: int = 512,
    seed: int = 0,
    protocol: Protocol = "packed",
    *,
    bos: bool | None = None,
    separator: Literal["eos"] | None = "eos",
    field: str = "text",
    skip: Blocks | None = None,
) -> Blocks:
    """Read a text source, tokenize it, cut it to blocks and draw ``count`` of them.

    Args:
        source: what ``read_documents`` reads, or a ``.npy`` file of token ids [n, T]: all its rows in order,
            or the first ``count`` where ``count`` is given; ``length``, ``seed``, ``protocol``, ``bos`` and
            ``separator`` do not apply to it, and it needs no tokenizer.
        tokenizer: the model's own.
        count: blocks to draw, one from each of ``count`` equal runs of the text's blocks; None takes all.
        length: tokens of a block, T; at most so many with ``documents``.
        seed: what the draw depends on. The blocks keep their order in the text.
        protocol: ``packed``: documents tokenized one by one, joined, cut to T - 1 tokens with BOS in front (T
            where there is no BOS). ``contiguous``: documents joined by a blank line, tokenized once with the
            tokenizer's own special tokens, cut to T. ``documents``: each by itself, truncated.
        bos: whether BOS stands in front of a block; None where the tokenizer has one.
        separator: ``eos`` joins packed documents by the tokenizer's EOS where it has one; None by nothing.
        field: which field of a row holds the text.
        skip: blocks, cut in the same way or given as ids, whose text must not be used again.

    Raises:
        TextError: an unreadable source, or fewer blocks in it than asked for.
        ArgumentError: a value that can never be right, or ``skip`` was cut in another way.
    """
    name = os.fspath(source)
    if count is not None and count < 1:
        raise ArgumentError(f"{count} blocks cannot be read.", hint="Ask for 1 or more.")
    if not 0 <= seed < 1 << 64:
        raise ArgumentError(f"seed must be an integer from 0 to 2^64 - 1, not {seed!r}.")
    if kind_of(Path(name)) == ".npy" and not name.startswith("hf:"):
        return _given(Path(name), tokenizer, count, bos, seed, skip)
    if tokenizer is None:
        raise TextError(
            f"{name} is text, and there is no tokenizer to turn it into token ids.",
            hint="Use a model folder that has its tokenizer, or token ids in a .npy file.",
        )
    cutting = choose_cutting(tokenizer, protocol, length, bos, separator)
    pieces = cutting.cut(read_documents(name, field=field, tokenizer=tokenizer), tokenizer)
    return _drawn(name, pieces, cutting, count, seed, skip)


def _drawn(
    name: str, pieces: Pieces, cutting: Cutting, count: int | None, seed: int, skip: Blocks | None
) -> Blocks:
    """``count`` of the pieces, spread over the text, or all of them."""
    if skip is not None:
        pieces = _leave_out(pieces, skip, cutting.protocol, cutting.front)
    found, wanted = len(pieces), 1 if count is None else count
    if found < wanted:
        raise TextError(
            f"{name} gives {found} blocks of {cutting.length} tokens{_besides(skip)}; "
            f"{wanted} were asked for.",
            hint="Use a shorter --length, fewer --blocks or more text.",
        )
    if count is not None:
        pieces = pieces.take(spread(found, count, seed))
    return Blocks(
        ids=pieces.padded(cutting.front),
        lengths=pieces.lengths + cutting.lead,
        bytes=pieces.bytes,
        protocol=cutting.protocol,
        source=name,
        documents=pieces.documents,
        bos=cutting.front is not None,
        seed=seed,
    )


def _given(
    path: Path, tokenizer: Any | None, count: int | None, bos: bool | None, seed: int, skip: Blocks | None
) -> Blocks:
    """The rows of a file of token ids, or the first ``count`` where that was asked for."""
    ids = read_ids(path)
    if bos is None:
        first = ids[0, 0] if tokenizer is None else tokenizer.bos_token_id
        bos = first is not None and bool((ids[:, 0] == first).all())
    pieces = cut_rows(ids)
    if skip is not None:
        pieces = _leave_out(pieces, skip, "tokens", None)
    wanted = len(pieces) or 1 if count is None or count is DEFAULT_COUNT else count
    if len(pieces) < wanted:
        raise TextError(
            f"{path} holds {len(pieces)} blocks{_besides(skip)}; {wanted} were asked for.",
            hint="Use fewer --blocks or a file with more rows.",
        )
    pieces = pieces.take(np.arange(wanted))
    return Blocks(pieces.padded(), pieces.lengths, None, "tokens", str(path), bos=bos, seed=seed)


def _leave_out(pieces: Pieces, skip: Blocks, protocol: str, front: int | None) -> Pieces:
    """The pieces that make, with ``front`` before them, no block of ``skip``."""
    first = np.array([] if front is None else [front], dtype=np.int64)
    size = len(first) + int(pieces.lengths.max(initial=0))
    alike = "tokens" in (protocol, skip.protocol) or (skip.protocol, skip.bos) == (protocol, len(first) > 0)
    if not alike or (len(pieces) and protocol != "documents" and skip.ids.shape[1] != size):
        raise ArgumentError(
            f"The blocks to skip are cut as {skip.protocol!r} to {skip.ids.shape[1]} tokens, these as "
            f"{protocol!r} to {size}.",
            hint="Cut both with the same length, protocol and BOS.",
        )
    used = {row[:end].tobytes() for row, end in zip(skip.ids, skip.lengths, strict=True)}
    head = first.tobytes()
    fresh = [i for i in range(len(pieces)) if head + pieces[i].astype(np.int64).tobytes() not in used]
    return pieces.take(np.array(fresh, dtype=np.int64))


def _besides(skip: Blocks | None) -> str:
    return "" if skip is None else " besides those already in use"
