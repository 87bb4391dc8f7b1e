"""One model as it reads batches: its final hidden states, and those between its layers where they count."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from scarprune.models.head import Head
from scarprune.models.layers import find_layers
from scarprune.runtime.graph import Graph, Tensors


def read(head: Head, ids: torch.Tensor, between_layers: bool) -> Tensors:
    """Final hidden states of ``ids`` [B, T]; after them those between layers, where asked for."""
    return head.states(ids) if between_layers else (head.hidden(ids),)


class Teacher:
    """A frozen model that is asked for its hidden states at blocks of a stream.

    With a number of cuttings that come again, its answers are kept: final hidden states are V / D times
    smaller than logits and are the same bits as if they were computed anew.
    """

    def __init__(self, head: Head, between_layers: bool) -> None:
        self.head = head
        self._between_layers = between_layers
        self._graph: Graph | None = None
        self._kept: torch.Tensor | None = None
        self._known: Any = None

    def keep(self, shape: tuple[int, int, int, int], like: torch.Tensor) -> None:
        """Make room for answers [cuts, pieces, T, D]."""
        self._kept = torch.empty(shape, dtype=like.dtype, device=like.device)
        self._known = torch.zeros(shape[:2], dtype=torch.bool)

    def capture(self, ids: torch.Tensor) -> None:
        """Answer by a CUDA graph from now on."""
        self._graph = Graph(self._read, ids)

    def release(self) -> None:
        """Answer without a CUDA graph again."""
        self._graph = None

    def __call__(self, ids: torch.Tensor, places: Any = None) -> Tensors:
        """Hidden states of ``ids`` [B, T]; ``places`` [B, 2] is their cutting and piece in the stream."""
        if self._kept is None or places is None:
            return self._answer(ids)
        cut, piece = torch.from_numpy(places).T
        known = bool(self._known[cut, piece].all())
        where = (cut * self._kept.shape[1] + piece).to(self._kept.device)
        flat = self._kept.flatten(0, 1)
        if known:
            return (flat[where],)
        answer = self._answer(ids)
        flat[where] = answer[0]
        self._known[cut, piece] = True
        return answer

    def _answer(self, ids: torch.Tensor) -> Tensors:
        return self._read(ids) if self._graph is None else self._graph(ids)

    @torch.no_grad()
    def _read(self, ids: torch.Tensor) -> Tensors:
        return read(self.head, ids, self._between_layers)


@contextlib.contextmanager
def checkpointed_layers(model: Any) -> Iterator[None]:
    """Activations inside a layer are made again in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    layers = find_layers(model)

    def again(forward: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

        return run

    for layer in layers:
        layer.forward = again(layer.forward)  # on the instance, in front of the class's
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
