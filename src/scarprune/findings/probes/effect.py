"""What a removal does: the increase of the loss, and what is left of it without the first-order term."""

from dataclasses import dataclass

import numpy as np

from scarprune.text.blocks import Blocks


@dataclass(frozen=True, eq=False)
class Effects:
    """Of n removals on one text, in nats per target.

    Attributes:
        dl: float64 [n], increase of the loss.
        d: float64 [n], D = (1/N) sum over blocks of (dL_b + G_b): the part that belongs to the model.
        error: float64 [n], standard error of D over blocks, clustered by document; NaN for one cluster.
        first_order: float64 [n], -(1/N) sum over blocks of G_b: the part that belongs to the text.
    """

    dl: np.ndarray
    d: np.ndarray
    error: np.ndarray
    first_order: np.ndarray


def effects(losses: np.ndarray, dense: np.ndarray, gains: np.ndarray, blocks: Blocks) -> Effects:
    """From losses [n, blocks] with channels removed, ``dense`` [blocks] and G [n, blocks] (``method`` 10)."""
    targets = blocks.targets
    increase = losses - dense
    second = increase + gains
    return Effects(
        increase.sum(1) / targets,
        second.sum(1) / targets,
        _clustered(second, clusters_of(blocks)) / targets,
        -gains.sum(1) / targets,
    )


def clusters_of(blocks: Blocks) -> np.ndarray:
    """int64 [blocks]: which blocks hang together, by their first document; each its own where unknown.

    Where all are of one document, each block is a cluster: there is no other unit.
    """
    if blocks.documents is None or len(np.unique(blocks.documents[:, 0])) < 2:
        return np.arange(len(blocks))
    _, index = np.unique(blocks.documents[:, 0], return_inverse=True)
    clusters: np.ndarray = index
    return clusters


def _clustered(values: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Standard error of the sum over blocks of ``values`` [n, blocks], blocks of a cluster going together."""
    count = int(clusters.max()) + 1
    if count < 2:
        return np.full(len(values), np.nan)
    deviation = values - values.mean(axis=1, keepdims=True)
    sums = np.zeros((len(values), count))
    np.add.at(sums.T, clusters, deviation.T)
    error: np.ndarray = np.sqrt(count / (count - 1) * np.square(sums).sum(axis=1))
    return error
