"""The extra pass ``gradient``: weight times its gradient, gathered over the weights of a channel.

One block is taken at a time, as a sample, and one matrix's gradient exists at a time. What is nonlinear in
the sum over blocks needs that sum for every weight: float32, for as many sites at once as the memory holds;
the rest of the sites takes another pass.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import nn

from scarprune.errors import MemoryBudgetError, NumericsError, UnsupportedModelError
from scarprune.models.head import Head
from scarprune.models.site import Projection, Site
from scarprune.models.weights import oriented, stored_weight
from scarprune.profile.loss import loss_gradient
from scarprune.profile.token_sums import wide
from scarprune.runtime.memory import is_out_of_memory
from scarprune.text.blocks import Blocks

_SHARE_OF_FREE = 0.5  # the rest is for the activations of one block


class _SiteGradients:
    """Of one site: for each projection the running sum of W * G, [m, d], and the sum of squares [m]."""

    def __init__(self, model: nn.Module, site: Site) -> None:
        self.site = site
        self._products: dict[str, torch.Tensor] = {}
        self._squares: dict[str, torch.Tensor] = {}
        self._of_weight: dict[nn.Parameter, list[Projection]] = {}
        for projection in site.projections:
            weight = _trainable(model, projection)
            self._of_weight.setdefault(weight, []).append(projection)

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Ask for the weights' gradients, and add each as soon as a backward pass has made it."""
        handles = []
        try:
            for weight in self._of_weight:
                weight.requires_grad_(True)
                handles.append(weight.register_post_accumulate_grad_hook(self._add))  # type: ignore[no-untyped-call]
            yield
        finally:
            for handle in handles:
                handle.remove()
            for weight in self._of_weight:
                weight.requires_grad_(False)
                weight.grad = None

    @torch.no_grad()
    def _add(self, weight: torch.Tensor) -> None:
        assert weight.grad is not None
        gradient, weight.grad = weight.grad, None
        for projection in self._of_weight[weight]:  # type: ignore[index]
            product = wide(_by_channel(weight, projection)) * _by_channel(gradient, projection)
            squares = product.square().sum(1)
            if projection.role in self._products:
                self._products[projection.role] += product
                self._squares[projection.role] += squares
            else:
                self._products[projection.role], self._squares[projection.role] = product, squares

    def arrays(self, scale: float) -> dict[str, np.ndarray]:
        """The statistics of the pass, float64 [m]; ``scale`` is what the loss was multiplied by."""
        magnitude = torch.stack([_double(product.abs().sum(1)) for product in self._products.values()])
        squares = torch.stack([_double(squares) for squares in self._squares.values()])
        kept = {"magnitude": magnitude.sum(0) / scale, "block_squares": squares.sum(0) / scale**2}
        for reader in self.site.readers:
            kept[f"sum_{reader.role}"] = _double(self._products[reader.role].sum(1)) / scale
        return {f"{self.site.name}/gradient/{name}": value.numpy() for name, value in kept.items()}


def gradient_sums(
    head: Head,
    sites: Sequence[Site],
    blocks: Blocks,
    vocabulary: int,
    scale: float,
    advance: Callable[[float], None],
) -> dict[str, np.ndarray]:
    """The statistics ``gradient/...`` of ``sites``, float64 [m] each, G of the loss summed over data labels.

    ``sum_gate``, ``sum_up``: sum over the row of W * G, G summed over all blocks; ``magnitude``: sum over
    gate row, up row and down column of abs(W * G); ``block_squares``: sum over the same weights and over
    blocks of (W * G_b)^2. Source: LLM-Pruner, ``hf_llama_pruner.py:TaylorImportance``.

    Raises:
        UnsupportedModelError: a weight is quantized or not in memory.
        MemoryBudgetError: one block does not fit.
        NumericsError: a sum is not finite.
    """
    while True:
        gathered = [_SiteGradients(head.model, site) for site in sites]
        with contextlib.ExitStack() as watches:
            for site in gathered:
                watches.enter_context(site.watched())
            for row in range(len(blocks)):
                ids = torch.from_numpy(blocks.ids[row : row + 1, : blocks.lengths[row]])
                _backward(head, ids, vocabulary, scale)
                advance(int(blocks.lengths[row]))
        arrays = {key: array for site in gathered for key, array in site.arrays(scale).items()}
        infinite = next((key for key, array in arrays.items() if not np.isfinite(array).all()), None)
        if infinite is None:
            return arrays
        if scale == 1.0:
            raise NumericsError(
                f"{infinite} is not finite: a weight's gradient overflowed at this site.",
                hint="Try --dtype bfloat16 or float32.",
            )
        scale = max(1.0, scale / 16)


def waves(sites: Sequence[Site], room_bytes: int) -> list[list[Site]]:
    """``sites`` in runs whose sums fit into half of ``room_bytes``, at least one site each."""
    runs: list[list[Site]] = []
    left = 0.0
    for site in sites:
        needed = sums_bytes(site)
        if not runs or needed > left:
            runs.append([])
            left = _SHARE_OF_FREE * room_bytes
        runs[-1].append(site)
        left -= needed
    return runs


def sums_bytes(site: Site) -> int:
    """Bytes of the float32 sums of one site."""
    return 4 * site.width * site.hidden * len(site.projections)


def _backward(head: Head, ids: torch.Tensor, vocabulary: int, scale: float) -> None:
    try:
        with torch.enable_grad():
            hidden = head.hidden(ids)
        result = loss_gradient(head, hidden, ids, ("data",), None, vocabulary, scale)
        torch.autograd.backward(hidden, result.gradient["data"])
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryBudgetError(
            f"The weight gradients of one block of {ids.shape[1]} tokens do not fit.",
            hint="Use shorter blocks (--length) or a smaller dtype.",
        ) from error.with_traceback(None)


def _trainable(model: nn.Module, projection: Projection) -> nn.Parameter:
    weight = stored_weight(model.get_submodule(projection.module))
    if not isinstance(weight, nn.Parameter) or weight.is_meta:
        raise UnsupportedModelError(
            f"{projection.module} is quantized or not in memory, so its weights have no gradient.",
            hint="Use a score that needs no weight gradients; `scarprune scores` says what each needs.",
        )
    return weight


def _by_channel(weight: torch.Tensor, projection: Projection) -> torch.Tensor:
    """[m, d]: a channel's weights in a row."""
    rows = oriented(weight, projection)
    return rows.T if projection.role == "down" else rows


def _double(sums: torch.Tensor) -> torch.Tensor:
    return sums.cpu().double()
