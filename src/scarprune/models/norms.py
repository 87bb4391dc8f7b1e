"""RMS norms as one kernel each way, where a model's own are many.

transformers writes them out in plain operations, each of which reads and writes all hidden states. torch has
had one kernel for it since 2.9.
"""

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

_EPSILONS = ("variance_epsilon", "eps")  # how families call what is added to the mean square
_DEVICES = ("cuda",)
_ULPS = 4  # the model's own may round once more, before the weight


@contextlib.contextmanager
def fused_norms(*models: nn.Module, float32: bool = False) -> Iterator[None]:
    """The RMS norms in ``models`` run as torch's own while the block runs; copies made inside keep that.

    A module is taken for one where it gives what torch's gives, on numbers of usual size and on small ones.
    Nothing is changed on a CPU, where it is not faster, nor where something else has taken over the call.

    Args:
        models: any modules.
        float32: also those whose weights are no 16-bit numbers. What is measured in float32 is otherwise what
            transformers computes, to the last bit.
    """
    changed: list[nn.Module] = []
    for module in (module for model in models for module in model.modules()):
        epsilon = _epsilon(module)
        if epsilon is None:
            continue
        weight: torch.Tensor = module.weight  # type: ignore[assignment]
        if weight.device.type not in _DEVICES or (weight.itemsize > 2 and not float32):
            continue
        if _gives_the_same(module, epsilon):
            module.forward = MethodType(_forward, module)
            changed.append(module)
    try:
        yield
    finally:
        for module in changed:
            del module.forward


def _forward(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    return _rms_norm(hidden_states, self.weight, _epsilon_of(self))


def _rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    dtype = torch.promote_types(x.dtype, weight.dtype)
    return F.rms_norm(x.to(dtype), weight.shape, weight.to(dtype), epsilon)


def _epsilon_of(module: Any) -> float:
    return float(next(getattr(module, name) for name in _EPSILONS if hasattr(module, name)))


def _epsilon(module: nn.Module) -> float | None:
    """What a module that looks like an RMS norm adds to the mean square; None where it does not."""
    names = [name for name, _ in module.named_parameters()]
    weight = getattr(module, "weight", None)
    if names != ["weight"] or not isinstance(weight, nn.Parameter) or weight.dim() != 1:
        return None
    if "forward" in vars(module) or hasattr(weight, "to_local") or weight.is_meta:
        return None
    if isinstance(module, nn.RMSNorm) or not any(hasattr(module, name) for name in _EPSILONS):
        return None
    return _epsilon_of(module)


@torch.no_grad()
def _gives_the_same(module: nn.Module, epsilon: float) -> bool:
    weight: torch.Tensor = module.weight  # type: ignore[assignment]
    usual = torch.randn(4, len(weight), generator=torch.Generator().manual_seed(0))
    x = torch.cat([usual, 1e-4 * usual]).to(weight)  # what is added to small ones counts
    try:
        own, fused = module(x), _rms_norm(x, weight, epsilon)
    except (RuntimeError, TypeError):
        return False
    close = _ULPS * torch.finfo(weight.dtype).eps
    alike = own.dtype == fused.dtype and own.shape == fused.shape
    return alike and torch.allclose(own, fused, rtol=close, atol=0.0)
