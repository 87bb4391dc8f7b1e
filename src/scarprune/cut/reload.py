"""What stock transformers makes of a checkpoint; run as a script of its own that never imports scarprune.

Requests come on stdin and answers go to stdout, one JSON object a line (``runtime/child.py``):
``shapes`` builds the config's model without weights, ``logits`` loads the checkpoint and runs it.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn


@contextlib.contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Compute in float32 with the values that are stored, one module's weights widened at a time."""
    narrow = [m for m in model.modules() if any(_is_narrow(t) for t in _own_tensors(m).values())]
    stored: dict[nn.Module, dict[str, torch.Tensor]] = {}

    def widen(module: nn.Module, *_: Any) -> None:
        stored[module] = {name: t.data for name, t in _own_tensors(module).items() if _is_narrow(t)}
        for name, tensor in stored[module].items():
            getattr(module, name).data = tensor.float()

    def restore(module: nn.Module, *_: Any) -> None:
        for name, tensor in stored.pop(module, {}).items():
            getattr(module, name).data = tensor

    hooks = [module.register_forward_pre_hook(widen) for module in narrow]
    hooks += [module.register_forward_hook(restore, always_call=True) for module in narrow]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _own_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    return {**dict(module.named_parameters(recurse=False)), **dict(module.named_buffers(recurse=False))}


def _is_narrow(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype != torch.float32


@contextlib.contextmanager
def _masked(model: nn.Module, keep: Mapping[str, Any]) -> Iterator[None]:
    def mask(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0] * masks[module].to(args[0].dtype), *args[1:])

    masks = {}
    for name, (width, kept) in keep.items():
        masks[model.get_submodule(name)] = torch.zeros(width).index_fill_(0, torch.tensor(kept), 1.0)
    hooks = [module.register_forward_pre_hook(mask) for module in masks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def shapes(folder: str, trust_remote_code: bool = False) -> dict[str, Any]:
    """Parameter name -> shape of the model that the folder's config describes; no weights are read."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    return {"shapes": {name: list(parameter.shape) for name, parameter in model.named_parameters()}}


def logits(
    folder: str,
    ids: list[int],
    out: str,
    dtype: str = "auto",
    keep: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Save float32 logits [T, V] of one block to ``out``; ``keep`` masks: module -> width, kept channels."""
    from transformers import AutoModelForCausalLM

    model, info = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=dtype,
        use_safetensors=True,
        output_loading_info=True,
        trust_remote_code=trust_remote_code,
    )
    for what in ("missing_keys", "mismatched_keys"):
        if info[what]:
            raise ValueError(f"{what.replace('_', ' ')}: {', '.join(map(str, sorted(info[what])[:3]))}")
    model.eval()
    with torch.no_grad(), _masked(model, keep or {}), in_float32(model):
        found = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    np.save(out, found.numpy())
    return {}


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return shapes(**request) if request.pop("do") == "shapes" else logits(**request)
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, AttributeError, ImportError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return {"error": f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"}


def _main() -> None:
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    sys.stdout = sys.stderr  # whatever a library prints is not an answer
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    _main()
