"""Forward passes with compiled layers, where that pays; uncompiled ones where the compiler fails."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import torch

from scarprune.models.forward import device_of
from scarprune.models.streamed import streamed_of
from scarprune.profile.compiling import Compiled, Compiling, resolve
from scarprune.runtime.memory import is_out_of_memory

_OF_BOTH_WAYS = 0.5  # what a token costs forward alone, of what it costs forward and backward
Result = TypeVar("Result")


class Attempt:
    """Calls work with the layers of a model compiled, as long as that works."""

    def __init__(self, compiling: Compiling, device: torch.device) -> None:
        self._compiling, self._device = compiling, device

    @property
    def compiles(self) -> bool:
        """Whether layers are compiled now."""
        return self._compiling.on

    @property
    def fuses(self) -> bool:
        """Whether the loss is, too; a CPU's caches hold a chunk of logits, so nothing is gained there."""
        return self._compiling.on and self._device.type == "cuda"

    def __call__(self, work: Callable[[], Result], length: int, *, whole: bool) -> Result:
        """What ``work`` gives for blocks of ``length``; ``whole``: as many of them as most batches have."""
        compiled = self._compiling.takes(length, whole)
        try:
            with self._compiling.batch(compiled):
                return work()
        except Exception as error:
            if is_out_of_memory(error) or not (compiled and self._compiling.gives_up(error)):
                raise
        return self(work, length, whole=whole)


@contextlib.contextmanager
def compiling(
    model: Any, lengths: np.ndarray, passes: float, compiled: Compiled = "auto"
) -> Iterator[Attempt]:
    """Compile the layers of ``model`` for what is attempted inside; no trace of it stays.

    ``auto``: where a GPU gains more than compiling costs, in ``passes`` forward over blocks of ``lengths``;
    never where layers are streamed, since what brings them is around each.
    """
    if streamed_of(model) is not None:
        compiled = False
    tokens = _OF_BOTH_WAYS * passes * float(lengths.sum())
    found = Compiling(resolve(compiled, model, tokens, 1), lengths)
    with found.layers(model):
        yield Attempt(found, device_of(model))
