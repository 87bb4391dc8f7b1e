"""The baselines of arXiv 2604.23475 as its code computes them, under ``paper_`` (``method`` 11).

Each is a sum over a channel's gate row, up row and down column, of terms that are not on one scale. None is
what the method of that name computes; those are scores of their own (``scarprune scores``).
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from scarprune.models.site import Site
from scarprune.models.weights import matrix
from scarprune.paper.padded import Output, Padded, Seen
from scarprune.scores.score import Values

_FLAP_EPSILON = 1e-6
_RIA_SHIFT = 1e-6
_LARGEST_Z = 10.0
_TINY = 1e-10

# A matrix [out, in] with the norms [in] of its inputs -> importance of every weight.
Weighing = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
# A row's weights [m, d] and what was seen of its output -> [m].
OfRows = Callable[[torch.Tensor, Output], torch.Tensor]


def paper_baselines(
    model: nn.Module, sites: Sequence[Site], seen: dict[str, Seen], padded: Padded
) -> dict[str, Values]:
    """Every baseline: name -> site name -> float64 [m], high = keep."""
    found: dict[str, Values] = {}
    for site in sites:
        readers = {str(reader.role): matrix(model, reader).detach().float() for reader in site.readers}
        down = matrix(model, site.down).detach().float()
        for name, values in _of_site(readers, down, seen[site.name], padded).items():
            found.setdefault(name, {})[site.name] = values.double().cpu().numpy()
    return found


def _of_site(
    readers: dict[str, torch.Tensor], down: torch.Tensor, seen: Seen, padded: Padded
) -> dict[str, torch.Tensor]:
    texts, tokens = len(padded.ids), padded.tokens
    x, u = ((square / texts).sqrt() for square in (seen.x2, seen.u2))
    found = {}
    for name, weigh in {"paper_wanda": wanda, "paper_owl": owl, "paper_ria": ria}.items():
        rows = [weigh(weights, x).sum(1) for weights in readers.values()]
        found[name] = torch.stack([*rows, weigh(down, u).sum(0)]).sum(0)
    if seen.inverse is not None:
        by_x, by_u = seen.inverse
        rows = [(weights.square() / by_x).sum(1) for weights in readers.values()]
        found["paper_sparsegpt"] = torch.stack([*rows, (down.square() / by_u).sum(0)]).sum(0)
    of_rows: dict[str, OfRows] = {
        "paper_llm_pruner": lambda weights, y: y.mean_absolute / texts * weights.abs().sum(1),
        "paper_slimllm": lambda weights, y: y.norm / texts * weights.abs().sum(1),
        "paper_flap": lambda weights, y: flap(y.total / tokens, y.square / tokens),
    }
    for name, of in of_rows.items():
        rows = [of(weights, seen.outputs[role]) for role, weights in readers.items()]
        found[name] = torch.stack([*rows, down.abs().sum(0)]).sum(0)
    return found


def wanda(weights: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    """abs(W_ij) * norm2(x_j)."""
    return weights.abs() * norms


def owl(weights: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    """Wanda times 1 + min(abs(z_j), 10) / 10, z of the inputs' norms; its sparsities by layer go unused."""
    z = (norms - norms.mean()) / norms.std().clamp(min=_TINY)
    return wanda(weights, norms) * (1 + z.abs().clamp(max=_LARGEST_Z) / 10)


def ria(weights: torch.Tensor, norms: torch.Tensor) -> torch.Tensor:
    """Wanda in standard deviations of its matrix, moved so that the smallest is 1e-6."""
    importance = wanda(weights, norms)
    return (importance - importance.min()) / importance.std().clamp(min=_TINY) + _RIA_SHIFT


def flap(mean: torch.Tensor, square: torch.Tensor) -> torch.Tensor:
    """abs(mean) / deviation of an output: FLAP's own measure is the variance, so this is the reverse."""
    variance = (square - mean.square()).clamp(min=0)
    return mean.abs() / ((variance + _FLAP_EPSILON).sqrt() + _FLAP_EPSILON)
