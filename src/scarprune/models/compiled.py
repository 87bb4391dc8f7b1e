"""Transformer layers run by torch.compile: layers alike share one compilation."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from scarprune.models.layers import find_layers

# Every layer of every model in this process is one function to the compiler, which by itself gives up on a
# function after 8 variants (shapes, dtypes, with and without gradients).
_MOST_VARIANTS = 256


def _run_layer(layer: Any, *args: Any, **kwargs: Any) -> Any:
    # One function with the layer as an argument: weights become inputs of the compiled code.
    return layer._call_impl(*args, **kwargs)


@contextlib.contextmanager
def compiled_layers(*models: Any) -> Iterator[None]:
    """The layers of ``models`` run compiled while the block runs; nothing of it stays on the models.

    One compilation serves all layers of one shape; another batch shape is another compilation. Hooks on a
    layer and inside it are compiled with it.

    Raises:
        UnsupportedModelError: no layers are found in a model.
    """
    with compiled([layer for model in models for layer in find_layers(model)]):
        yield


@contextlib.contextmanager
def compiled(layers: Sequence[Any]) -> Iterator[None]:
    """``layers`` run compiled while the block runs, as in ``compiled_layers``; they may be of no model."""
    run = torch.compile(_run_layer, dynamic=False)
    with torch._dynamo.config.patch(
        recompile_limit=_MOST_VARIANTS,
        accumulated_recompile_limit=_MOST_VARIANTS,
        skip_nnmodule_hook_guards=False,  # else hooks that come later would be left out without a word
    ):
        try:
            for layer in layers:
                layer._compiled_call_impl = functools.partial(run, layer)  # what nn.Module.compile sets
            yield
        finally:
            for layer in layers:
                vars(layer).pop("_compiled_call_impl", None)
