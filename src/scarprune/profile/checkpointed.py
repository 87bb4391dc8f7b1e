"""Layers that keep their input alone for the backward pass, and compute the rest of it again there."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


@contextlib.contextmanager
def checkpointed(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Each of ``layers`` is one checkpoint while the block runs, around whatever compiles it."""
    modules: list[Any] = list(layers)
    before = [vars(layer).get("_compiled_call_impl") for layer in modules]
    for layer, compiled in zip(modules, before, strict=True):
        # What nn.Module.compile sets, and nn.Module.__call__ calls in place of the plain call.
        layer._compiled_call_impl = functools.partial(
            checkpoint, compiled or layer._call_impl, use_reentrant=False, preserve_rng_state=False
        )
    try:
        yield
    finally:
        for layer, compiled in zip(modules, before, strict=True):
            del layer._compiled_call_impl
            if compiled is not None:
                layer._compiled_call_impl = compiled
