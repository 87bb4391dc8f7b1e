"""Forward passes with compiled layers, where that pays; uncompiled ones where the compiler fails."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

import torch

from scarprune.models.compiled import compiled_layers
from scarprune.runtime.memory import is_out_of_memory
from scarprune.runtime.progress import remark

Compiled = bool | Literal["auto"]
Result = TypeVar("Result")

# Compiling takes about 15 s of a GPU that is a quarter faster afterwards (``benchmarks/evaluate_gpu.py``).
OPERATIONS_WORTH_COMPILING = 3e16
_failures: list[str] = []  # of this process: what failed once is neither tried nor said again


class Attempt:
    """Calls work with the layers of a model compiled, as long as that works.

    Attributes:
        compiles: whether layers are compiled now.
        fuses: whether the loss is, too.
    """

    def __init__(self, device: torch.device, stack: contextlib.ExitStack, compiles: bool) -> None:
        self._stack, self._device, self.compiles = stack, device, compiles

    @property
    def fuses(self) -> bool:
        """A CPU's caches hold a chunk of logits, so that nothing is gained there."""
        return self.compiles and self._device.type == "cuda"

    def __call__(self, work: Callable[[], Result], *, again: bool = True) -> Result:
        """What ``work`` gives. Shapes that do not come ``again`` are not worth a compilation."""
        if not self.compiles:
            return work()
        try:
            with contextlib.nullcontext() if again else torch.compiler.set_stance("force_eager"):
                return work()
        except Exception as error:
            if is_out_of_memory(error) or not _of_compiler(error):
                raise
            failed = str(error).strip().splitlines()[0]
        self._stack.close()
        self.compiles = False
        _failures.append(failed)
        remark(f"The layers of this model run uncompiled, and slower for it: {failed}")
        return work()


@contextlib.contextmanager
def compiling(
    model: Any, device: torch.device, operations: float, compiled: Compiled = "auto"
) -> Iterator[Attempt]:
    """Compile the layers of ``model`` for what is attempted inside; no trace of it stays.

    ``auto``: on a CUDA device, for at least ``OPERATIONS_WORTH_COMPILING``, unless the compiler has failed
    before in this process.
    """
    pays = device.type == "cuda" and operations >= OPERATIONS_WORTH_COMPILING and not _failures
    wanted = pays if compiled == "auto" else bool(compiled)
    with contextlib.ExitStack() as stack:
        if wanted:
            stack.enter_context(compiled_layers(model))
        yield Attempt(device, stack, wanted)


def _of_compiler(error: Exception) -> bool:
    return isinstance(error, torch._dynamo.exc.TorchDynamoException)
