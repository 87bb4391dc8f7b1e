"""What is trained, as one flat float32 tensor; the model computes with views of a copy in its own dtype."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch

_ALIGNED = 64  # numbers: every parameter begins where matrix kernels read fastest


class Weights:
    """Takes over the parameters of a model until ``give_back``.

    One tensor makes the optimizer, the sum over processes, the copy of the best and the saved state one
    operation each.

    Attributes:
        trained: the parameters that require a gradient, tied ones once.
        master: float32 [P], their values, with gaps of zeros where they are aligned.
        gradient: float32 [P], to be added to.
    """

    def __init__(self, model: Any, dtype: torch.dtype) -> None:
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self._dtypes = [p.dtype for p in self.trained]
        device = self.trained[0].device
        size = sum(_room(p) for p in self.trained)
        self.master = torch.zeros(size, dtype=torch.float32, device=device)
        self.gradient = torch.zeros_like(self.master)
        self.master.grad = self.gradient
        for parameter, view in zip(self.trained, self._views(self.master), strict=True):
            view.copy_(parameter.data)
        self._work = self.master if dtype == torch.float32 else self.master.to(dtype)
        for parameter, view in zip(self.trained, self._views(self._work), strict=True):
            parameter.data = view
        self._frozen = {
            p: p.data for p in model.parameters() if not p.requires_grad and p.is_floating_point()
        }
        for parameter, original in self._frozen.items():
            parameter.data = original.to(dtype)
        self._slots = list(self._views(self.gradient))

    def add_gradients(self, gradients: tuple[torch.Tensor | None, ...]) -> None:
        """Add one gradient for each trained parameter; None adds nothing."""
        for slot, gradient in zip(self._slots, gradients, strict=True):
            if gradient is not None:
                slot.add_(gradient)

    def publish(self) -> None:
        """Let the model compute with what ``master`` holds now."""
        if self._work is not self.master:
            self._work.copy_(self.master)

    @contextlib.contextmanager
    def as_given_back(self) -> Iterator[None]:
        """The model computes with the values it will be given back with, where those are rounded."""
        if all(dtype in (torch.float32, self._work.dtype) for dtype in self._dtypes):
            yield  # float32 can be saved as it is; what is computed in a narrower dtype is rounded already
            return
        exact = self.master.clone()
        for dtype, view in zip(self._dtypes, self._views(self.master), strict=True):
            view.copy_(view.to(dtype))
        self.publish()
        try:
            yield
        finally:
            self.master.copy_(exact)
            self.publish()

    def give_back(self) -> None:
        """Leave the model with ordinary parameters in the dtypes it came in, at the values of ``master``."""
        views = self._views(self.master)
        for parameter, dtype, view in zip(self.trained, self._dtypes, views, strict=True):
            parameter.data = view.to(dtype, copy=True)
        for parameter, original in self._frozen.items():
            parameter.data = original

    def _views(self, flat: torch.Tensor) -> Iterator[torch.Tensor]:
        start = 0
        for parameter in self.trained:
            yield flat[start : start + parameter.numel()].view(parameter.shape)
            start += _room(parameter)


def _room(parameter: torch.Tensor) -> int:
    return math.ceil(parameter.numel() / _ALIGNED) * _ALIGNED
