"""The weights of a projection in one orientation, however the architecture stores them."""

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from scarprune.models.site import Projection
from scarprune.models.tensor_parallel import whole

_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
_PROBED_ROWS = 1024


def linear_shape(module: nn.Module) -> tuple[int, int] | None:
    """(in, out) of a module that multiplies by one matrix, or None for any other."""
    weight = stored_weight(module)
    if weight is not None:
        inner, outer = weight.shape if isinstance(module, Conv1D) else reversed(weight.shape)
        return int(inner), int(outer)
    features = getattr(module, "in_features", None), getattr(module, "out_features", None)
    return (features[0], features[1]) if features[0] and features[1] else None


def stored_weight(module: nn.Module) -> torch.Tensor | None:
    """The matrix of a Linear or Conv1D as it is stored; None where it is quantized or no such module."""
    if not isinstance(module, nn.Linear | Conv1D):
        return None
    weight: torch.Tensor = module.weight
    return weight if weight.dtype in _FLOATS and weight.dim() == 2 else None


def matrix(model: nn.Module, projection: Projection) -> torch.Tensor:
    """The projection as [out, in]: [m, d] for gate and up, [d, m] for down.

    A view of the stored weight where that is a plain matrix; computed from what the module does to unit
    vectors where it is quantized, fetched where it is offloaded, and gathered where it lies in parts.
    """
    module = model.get_submodule(projection.module)
    weight = stored_weight(module)
    if weight is None:
        weight = _by_probing(module, model)
    elif weight.is_meta:
        weight = _fetched(module)
    return oriented(whole(weight), projection)


def oriented(weight: torch.Tensor, projection: Projection) -> torch.Tensor:
    """Of a module's ``weight``, or of its gradient, the projection's part as [out, in]: a view."""
    return _part(weight.T if projection.transposed else weight, projection)


def bias(model: nn.Module, projection: Projection) -> torch.Tensor | None:
    """The projection's bias [out], a view; None where it has none."""
    found = getattr(model.get_submodule(projection.module), "bias", None)
    return _part(found, projection) if isinstance(found, torch.Tensor) else None


def _part(tensor: torch.Tensor, projection: Projection) -> torch.Tensor:
    size = tensor.shape[0] // projection.parts
    return tensor.narrow(0, projection.part * size, size)


@torch.no_grad()
def _by_probing(module: nn.Module, model: nn.Module) -> torch.Tensor:
    inner = int(module.in_features)  # type: ignore[arg-type]
    device = next(module.parameters()).device
    dtype = next((p.dtype for p in model.parameters() if p.dtype in _FLOATS), torch.float32)
    offset = module(torch.zeros(1, inner, device=device, dtype=dtype))
    rows = []
    for start in range(0, inner, _PROBED_ROWS):
        units = torch.zeros(min(_PROBED_ROWS, inner - start), inner, device=device, dtype=dtype)
        units[torch.arange(len(units)), start + torch.arange(len(units))] = 1
        rows.append(module(units) - offset)
    return torch.cat(rows).T


@torch.no_grad()
def _fetched(module: nn.Module) -> torch.Tensor:
    from accelerate.utils import align_module_device

    with align_module_device(module, "cpu"):
        return module.weight.clone()  # type: ignore[operator]
