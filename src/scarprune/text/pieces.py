"""Cutting tokenized documents to pieces, one of which becomes one block."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from scarprune.text.tokens import Tokens


@dataclass(frozen=True, slots=True)
class Pieces:
    """Pieces of a stream of token ids, in the order of the text.

    Attributes:
        stream: int32 or int64, all ids.
        starts: int64 [n], where in the stream each piece begins.
        lengths: int64 [n], its tokens.
        bytes: int64 [n], UTF-8 bytes of its targets' text, or None where unknown.
        documents: int64 [n, 2], its first and last document, or None.
    """

    stream: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    bytes: np.ndarray | None = None
    documents: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, piece: int) -> np.ndarray:
        start = self.starts[piece]
        return self.stream[start : start + self.lengths[piece]]

    def take(self, indices: np.ndarray) -> "Pieces":
        """The pieces at ``indices``, in that order."""
        return Pieces(
            stream=self.stream,
            starts=self.starts[indices],
            lengths=self.lengths[indices],
            bytes=None if self.bytes is None else self.bytes[indices],
            documents=None if self.documents is None else self.documents[indices],
        )

    def padded(self, front: int | None = None) -> np.ndarray:
        """All pieces as int64 [n, T], the id ``front`` before each, zeros behind the shorter ones."""
        lead = 0 if front is None else 1
        ids = np.zeros((len(self), lead + int(self.lengths.max(initial=0))), dtype=np.int64)
        if front is not None:
            ids[:, 0] = front
        for piece, row in enumerate(ids):
            row[lead : lead + self.lengths[piece]] = self[piece]
        return ids


def cut_joined(documents: Iterable[Tokens], size: int, *, first_target: int, separator: int | None) -> Pieces:
    """Documents joined by ``separator`` and cut to pieces of ``size``; the last short one is dropped.

    Args:
        documents: those without tokens leave no trace.
        size: tokens of a piece.
        first_target: 0 where BOS will stand before a piece, 1 where nothing predicts its own first token.
        separator: an id put between documents, which counts no bytes; None joins them without.
    """
    parts: list[np.ndarray] = []
    indices: list[int] = []
    starts: list[int] = []
    byte_counts: list[int] = []
    length, known = 0, True
    for index, tokens in enumerate(documents):
        if not len(tokens.ids):
            continue
        if separator is not None and parts:
            parts.append(np.array([separator], dtype=np.int32))
            length += 1
        known = known and _count_bytes(byte_counts, tokens, length, size, first_target)
        parts.append(tokens.ids)
        indices.append(index)
        starts.append(length)
        length += len(tokens.ids)
    edges = np.arange(length // size + 1, dtype=np.int64) * size
    spans = np.stack((edges[:-1], edges[1:] - 1), axis=1)
    return Pieces(
        stream=np.concatenate([*parts, np.empty(0, dtype=np.int32)]),
        starts=edges[:-1],
        lengths=np.diff(edges),
        bytes=np.array(byte_counts[: len(spans)], dtype=np.int64) if known else None,
        documents=np.array(indices, dtype=np.int64)[np.searchsorted(starts, spans, side="right") - 1],
    )


def cut_single(documents: Iterable[Tokens], size: int, *, first_target: int) -> Pieces:
    """Each document by itself, truncated to ``size`` tokens; those without a target are left out."""
    parts: list[np.ndarray] = []
    indices: list[int] = []
    byte_counts: list[int] = []
    known = True
    for index, tokens in enumerate(documents):
        ids = tokens.ids[:size]
        if len(ids) <= first_target:
            continue
        covered = tokens.bytes_before((first_target, len(ids)))
        known = known and covered is not None
        byte_counts.append(covered[1] - covered[0] if covered else 0)
        parts.append(ids)
        indices.append(index)
    lengths = np.array([len(part) for part in parts], dtype=np.int64)
    return Pieces(
        stream=np.concatenate([*parts, np.empty(0, dtype=np.int32)]),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        bytes=np.array(byte_counts, dtype=np.int64) if known else None,
        documents=np.stack((indices, indices), axis=1).astype(np.int64),
    )


def cut_rows(ids: np.ndarray) -> Pieces:
    """The rows of ``ids`` [n, T], given as they are."""
    count, length = ids.shape
    lengths = np.full(count, length, dtype=np.int64)
    return Pieces(stream=ids.reshape(-1), starts=np.arange(count) * length, lengths=lengths)


def _count_bytes(counts: list[int], tokens: Tokens, start: int, size: int, first_target: int) -> bool:
    """Add a document at ``start`` of the stream to the bytes of its pieces; False where they are unknown."""
    stop = start + len(tokens.ids)
    pieces = range(start // size, (stop - 1) // size + 1)
    edges = [
        min(max(edge - start, 0), len(tokens.ids))
        for piece in pieces
        for edge in (piece * size + first_target, (piece + 1) * size)
    ]
    covered = tokens.bytes_before(edges)
    if covered is None:
        return False
    counts.extend([0] * (pieces.stop - len(counts)))
    for piece, before, after in zip(pieces, covered[::2], covered[1::2], strict=True):
        counts[piece] += after - before
    return True
