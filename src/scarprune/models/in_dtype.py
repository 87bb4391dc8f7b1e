"""A model in another dtype, beside the one that stays as it is."""

import copy
from typing import Any

import torch


def in_dtype(model: Any, dtype: torch.dtype) -> Any:
    """``model`` where its weights are ``dtype`` already, else a copy whose weights are; buffers stay."""
    if all(p.dtype == dtype for p in model.parameters() if p.is_floating_point()):
        return model
    made = copy.deepcopy(model)
    for parameter in made.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
    return made
