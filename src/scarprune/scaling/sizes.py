"""The numbers of a model that costs follow from; a model of meta tensors has them all."""

from dataclasses import dataclass
from typing import Any

from scarprune.models.context import vocabulary_size
from scarprune.models.cost import Cost, Parts, cost_of
from scarprune.models.find import find_sites
from scarprune.stats.select import floor_share


@dataclass(frozen=True, slots=True)
class Sizes:
    """What the formulas are functions of.

    Attributes:
        cost: operations per token and bytes, by part.
        hidden: d.
        vocabulary: V, rows of the embedding.
        readers: matrices that read a network's input: 2 where it is gated, else 1.
        itemsize: bytes of a number that is computed with.
    """

    cost: Cost
    hidden: int
    vocabulary: int
    readers: int
    itemsize: int

    @property
    def layers(self) -> int:
        """L."""
        return self.cost.layers

    @property
    def widths(self) -> tuple[int, ...]:
        """m of each site."""
        return self.cost.widths

    @property
    def channels(self) -> int:
        """Of all sites together."""
        return sum(self.widths)

    @property
    def weight_bytes(self) -> float:
        """Of all weights in the dtype of computing, tied ones once."""
        return self.cost.parameters * self.itemsize

    def cores(self, rho: float = 0.01) -> tuple[int, ...]:
        """k of each site: channels of its core."""
        return tuple(max(1, floor_share(rho, width)) for width in self.widths)

    def without(self, sparsity: float) -> Parts:
        """Operations per token of the products of a model with that share of its channels cut."""
        whole = self.cost.matrices
        return Parts(whole.ffn * (1 - sparsity), whole.attention, whole.vocabulary, whole.other)

    def kept_parameters(self, sparsity: float) -> float:
        """Parameters that a cut of that share of the channels leaves; a weight is two operations a token."""
        return self.cost.parameters - self.cost.matrices.ffn / 2 * sparsity


def sizes_of(model: Any, itemsize: int) -> Sizes:
    """The sizes of ``model``, computed with in numbers of ``itemsize`` bytes.

    Raises:
        UnsupportedModelError: no feed-forward networks are known in it.
    """
    site = find_sites(model)[0]
    return Sizes(cost_of(model), site.hidden, vocabulary_size(model), len(site.readers), itemsize)
