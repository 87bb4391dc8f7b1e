"""Blocks of token ids: what every measurement reads."""

import hashlib
from dataclasses import dataclass

import numpy as np


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
