"""What stock transformers computes with a checkpoint; run as a script that never imports scarprune.

Requests come on stdin and answers go to stdout, one JSON object a line (``runtime/child.py``).
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


def logits(
    folder: str,
    ids: list[int],
    out: str,
    dtype: str = "auto",
    keep: Mapping[str, Any] | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Save float32 logits [T, V] of one block to ``out``; ``keep`` masks: module -> width, kept channels."""
    import transformers

    options = {"trust_remote_code": trust_remote_code}
    config = transformers.AutoConfig.from_pretrained(folder, **options)
    model, info = _automatic(transformers, config).from_pretrained(
        folder, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **options
    )
    for what in ("missing_keys", "mismatched_keys"):
        if info[what]:
            raise ValueError(f"{what.replace('_', ' ')}: {', '.join(map(str, sorted(info[what])[:3]))}")
    model.eval()
    with torch.no_grad(), _masked(model, keep or {}), in_float32(model):
        found = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    np.save(out, found.numpy())
    return {}


def _automatic(transformers: Any, config: Any) -> Any:
    """The class that loads ``config``'s model whole: a multimodal one may have a text-only one beside it."""
    made_for = transformers.AutoModelForCausalLM._model_mapping.get(type(config), None)
    text_only = made_for is not None and made_for.config_class not in (None, type(config))
    whole = not text_only and (made_for is not None or getattr(config, "auto_map", None))
    return transformers.AutoModelForCausalLM if whole else transformers.AutoModelForImageTextToText


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        return logits(**request)
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
