"""A forward pass that begins at a layer's input: what lies below runs once, however much comes above."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from scarprune.models.head import Head


class _Reached(Exception):
    """Raised where a pass is to end; holds the hidden states that it has come to."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.hidden = hidden


class Prefix:
    """The hidden states of one batch on their way up the layers."""

    def __init__(self, head: Head, layers: Sequence[nn.Module], ids: torch.Tensor, *, tuples: bool) -> None:
        """Begin below the first layer.

        Args:
            head: of the model.
            layers: all of its layers, in order.
            ids: [B, T].
            tuples: whether layers return tuples that begin with the hidden states.
        """
        self._head, self._layers, self._ids, self._tuples = head, layers, ids, tuples
        self._at = 0
        self._hidden: torch.Tensor | None = None

    def before(self, layer: int) -> torch.Tensor:
        """What layer ``layer`` is given: [B, T, D]; layers are asked for from the bottom up."""
        if self._hidden is None or layer > self._at:
            with contextlib.ExitStack() as stack:
                if self._hidden is not None:
                    stack.enter_context(self._skipping(self._hidden))
                stack.enter_context(_called(self._layers[layer], _stop))
                try:
                    self._head.hidden(self._ids)
                except _Reached as reached:
                    self._at, self._hidden = layer, reached.hidden
        assert self._hidden is not None
        return self._hidden

    def finish(self, ids: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Final hidden states, with ``hidden`` given to the layer that ``before`` was last asked for.

        Args:
            ids: [1, T] or [B, T], for the model to see a length and positions; not read otherwise.
            hidden: [.., T, D].
        """
        with self._skipping(hidden):
            return self._head.hidden(ids)

    @contextlib.contextmanager
    def _skipping(self, hidden: torch.Tensor) -> Iterator[None]:
        """Layers below hand on what they are given, and the next one is given ``hidden``."""

        def hand_on(inner: Callable[..., Any], given: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            return (given,) if self._tuples else given

        def enter(inner: Callable[..., Any], given: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            return inner(hidden, *args, **kwargs)

        with contextlib.ExitStack() as stack:
            for layer in self._layers[: self._at]:
                stack.enter_context(_called(layer, hand_on))
            stack.enter_context(_called(self._layers[self._at], enter))
            yield


def _stop(inner: Callable[..., Any], given: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    raise _Reached(given)


@contextlib.contextmanager
def _called(layer: Any, instead: Callable[..., Any]) -> Iterator[None]:
    """Call ``instead(what the layer would do, hidden states, ...)`` where ``layer`` is called."""
    before = vars(layer).get("_compiled_call_impl")  # what nn.Module calls, where there is one
    inner = before or layer._call_impl

    def call(*args: Any, **kwargs: Any) -> Any:
        if args:
            return instead(inner, *args, **kwargs)
        given = kwargs.pop("hidden_states")
        return instead(inner, given, **kwargs)

    layer._compiled_call_impl = call
    try:
        yield
    finally:
        if before is None:
            vars(layer).pop("_compiled_call_impl", None)
        else:
            layer._compiled_call_impl = before
