"""In which dtype each tensor of a model in memory is saved: as its source stored it."""

from typing import Any

import torch

from scarprune.cut.cast import stored_dtype
from scarprune.models.checkpoint import open_checkpoint
from scarprune.models.names import canonical
from scarprune.models.source import origin_of
from scarprune.runtime.device import DTYPES

_STORED = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}


def saved_dtypes(model: Any, save_dtype: str | None = None) -> dict[str, torch.dtype]:
    """Name in the state dict -> dtype to save in.

    ``save_dtype`` where given; else what the source's file has for the tensor, bfloat16 where that was GGUF;
    else, for a model that ``load_model`` did not load, its own dtype. What is no floating number stays.

    Raises:
        ArgumentError: not a dtype that weights are saved in.
    """
    if save_dtype is not None:
        stored_dtype(save_dtype)
    wanted = None if save_dtype is None else DTYPES[save_dtype]
    of_source, usual = ({}, None) if wanted else _source_dtypes(model)
    found = {}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            found[name] = wanted or of_source.get(canonical(name)) or usual or tensor.dtype
        else:
            found[name] = tensor.dtype
    return found


def _source_dtypes(model: Any) -> tuple[dict[str, torch.dtype], torch.dtype | None]:
    """Canonical name -> dtype in the source's files, and the dtype of names they do not have."""
    origin = origin_of(model)
    if origin is None:
        return {}, None
    if origin.gguf:
        return {}, torch.bfloat16
    checkpoint = open_checkpoint(origin.path)
    stored = {canonical(n): _STORED[t.dtype] for n, t in checkpoint.tensors.items() if t.dtype in _STORED}
    return stored, _STORED.get(checkpoint.dtype or "")
