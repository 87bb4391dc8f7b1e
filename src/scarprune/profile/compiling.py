"""Passes under torch.compile: where it pays, for the batches of one shape, and until it fails."""

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from scarprune.errors import MemoryBudgetError, first_line
from scarprune.models.compiled import compiled_layers
from scarprune.models.forward import device_of
from scarprune.models.norms import fused_norms
from scarprune.models.streamed import streamed_of
from scarprune.profile.estimate import matmul_parameters, matmul_rate
from scarprune.profile.loss import Rows
from scarprune.runtime.progress import remark

Compiled = bool | Literal["auto"]
# Shares of the matmul ceiling that a watched pass reaches on an H200, Llama-3.1-8B's shape, and the seconds
# that the compiler takes for a pass, nothing cached, on an H100 (benchmarks/profile_gpu.py).
_EAGER_SHARE, _COMPILED_SHARE = 0.65, 0.75
_SECONDS_TO_COMPILE = 16.0


class Compiling:
    """Layers with their sums, and the rows of the loss, as compiled code.

    Every shape of a batch is another compilation: only batches of the commonest are compiled, the others run
    eagerly. So does everything once the compiler has failed.

    Attributes:
        on: whether batches are compiled.
        proven: whether a compiled batch gave the sums that its blocks give eagerly (``Proof``).
        rows: what takes a chunk of the head's output to its loss and gradient.
    """

    def __init__(self, on: bool, lengths: np.ndarray) -> None:
        self.on, self.proven = on, False
        self.rows = Rows(on)
        values, counts = np.unique(lengths, return_counts=True)
        self._length = int(values[(values * counts).argmax()])
        self._inside = False

    @contextlib.contextmanager
    def layers(self, model: nn.Module) -> Iterator[None]:
        """The layers of ``model`` are compiled inside; else their norms at least are one kernel each."""
        if not self.on:
            with fused_norms(model):
                yield
            return
        # A second kind of labels goes back over the same forward pass: the first may not write over it.
        with (
            torch._functorch.config.patch(donated_buffer=False),
            warnings.catch_warnings(),
            compiled_layers(model),
        ):
            warnings.filterwarnings("ignore", module=r"torch\._(inductor|dynamo)")  # advice to programmers
            self._inside = True
            try:
                yield
            finally:
                self._inside = False

    def takes(self, length: int, whole: bool) -> bool:
        """Whether a batch of blocks of ``length`` is compiled; ``whole``: it has as many as most have."""
        return self.on and self._inside and whole and length == self._length

    def batch(self, compiled: bool) -> contextlib.AbstractContextManager[Any]:
        """Compiled code runs as the plain code it was made of inside, unless the batch is ``compiled``."""
        if compiled or not self._inside:
            return contextlib.nullcontext()
        eagerly: contextlib.AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
        return eagerly

    def gives_up(self, error: Exception) -> bool:
        """Turn compiling off and say why; False where it was off, and ``error`` is not the compiler's."""
        if not self.on:
            return False
        self.on = False
        remark(f"torch.compile failed, so the rest runs eagerly: {first_line(error)}")
        return True


def resolve(compiled: Compiled, model: nn.Module, tokens: float, passes: int) -> bool:
    """Whether to compile ``passes`` that take ``tokens`` forward and backward in all.

    ``auto``: on one CUDA device, where operations / ceiling * (1 / eager share - 1 / compiled share) seconds
    are saved, and those are more than compiling takes; 4 operations per weight and token. Not where there is
    too little memory to measure the ceiling: whether anything else fits is for others to say.
    """
    if compiled != "auto":
        return bool(compiled)
    devices = {parameter.device for parameter in model.parameters()}
    device = device_of(model)
    if (len(devices) > 1 and streamed_of(model) is None) or device.type != "cuda":
        return False
    operations = 4.0 * matmul_parameters(model) * tokens
    try:
        ideal = operations / matmul_rate(next(model.parameters()).dtype, device)
    except MemoryBudgetError:
        return False
    return ideal * (1 / _EAGER_SHARE - 1 / _COMPILED_SHARE) > passes * _SECONDS_TO_COMPILE


def even_batch(batch: int, blocks: int) -> int:
    """The largest divisor of ``blocks`` from ``batch`` down to its half, else ``batch``."""
    return next((size for size in range(batch, batch // 2, -1) if blocks % size == 0), batch)
