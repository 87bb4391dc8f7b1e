"""From token ids to final hidden states, and from those to logits, a few tokens at a time."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from scarprune.models.context import vocabulary_size
from scarprune.models.family import known_family, read, text_config
from scarprune.models.forward import forward, input_device
from scarprune.models.tensor_parallel import Gathered

_PROBE_TOKENS = 6
_ROUNDINGS = 16  # how many of its dtype's roundings the stock logits may be away, of their largest


@dataclass(frozen=True)
class Head:
    """The end of a causal language model.

    Attributes:
        model: the whole model.
        chunked: whether logits of single tokens follow from hidden states. Where the architecture is
            unknown and they do not, ``hidden`` is the logits and ``logits`` passes them through.
        scale: factor of the linear head's output.
        softcap: c of c * tanh(logits / c), or None.
        chunk_bytes: of float32 logits that are made at once at most; None is what a device does well.
    """

    model: nn.Module
    chunked: bool = True
    scale: float = 1.0
    softcap: float | None = None
    chunk_bytes: int | None = None

    def hidden(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Final normed hidden states [B, T, D] of ``input_ids`` [B, T], on the model's device."""
        ids = input_ids.to(input_device(self.model))
        if not self.chunked:
            return forward(self.model, ids).logits  # type: ignore[no-any-return]
        base: Any = self.model.base_model
        return forward(base, ids).last_hidden_state  # type: ignore[no-any-return]

    def states(self, input_ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """``hidden`` of ``input_ids``, and after it the hidden states [B, T, D] between the layers."""
        ids = input_ids.to(input_device(self.model))
        if not self.chunked:
            output = forward(self.model, ids, output_hidden_states=True)
            return (output.logits, *output.hidden_states[1:-1])
        base: Any = self.model.base_model
        output = forward(base, ids, output_hidden_states=True)
        return (output.last_hidden_state, *output.hidden_states[1:-1])

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """float32 logits [..., V] of hidden states [..., D]; differentiable."""
        return self.finish(self.linear(hidden))

    def linear(self, hidden: torch.Tensor) -> torch.Tensor:
        """The linear head's output [..., V] in the model's dtype; differentiable."""
        if not self.chunked:
            return hidden
        output: torch.Tensor = self._linear(hidden.to(_device_of(self._linear, hidden)))
        return output

    @property
    def in_parts(self) -> Gathered | None:
        """The linear head where each process computes a part of the vocabulary, else None."""
        return self._linear if self.chunked and isinstance(self._linear, Gathered) else None

    @property
    def _linear(self) -> nn.Module:
        return self.model.get_output_embeddings()  # type: ignore[operator, no-any-return]

    def finish(self, output: torch.Tensor) -> torch.Tensor:
        """float32 logits from the linear head's ``output``, element by element."""
        logits = output.float()
        if self.scale != 1.0:
            logits = logits * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)


def find_head(model: nn.Module) -> Head:
    """The head of ``model``, checked once against the model's own logits of a few tokens."""
    config: Any = getattr(model, "config", None)
    plain = Head(model)
    candidates = [plain]
    family = known_family(config)
    if family is not None:
        text = text_config(config)
        scale = (_number(text, family.logit_scale_key) or 1.0) / (
            _number(text, family.logit_divisor_key) or 1.0
        )
        declared = Head(model, scale=scale, softcap=_number(text, family.softcap_key))
        if declared != plain:
            candidates.insert(0, declared)  # a multimodal wrapper may leave out what the language model does
    sample = _sample(model)
    found = None if sample is None else next((head for head in candidates if _agrees(head, *sample)), None)
    return found or Head(model, chunked=False)


def _number(config: Any, key: str | None) -> float | None:
    value = None if key is None else read(config, key)
    return float(value) if isinstance(value, int | float) else None


@torch.no_grad()
def _sample(model: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Final hidden states and the model's own logits of a few tokens; None where there are no such states."""
    base, linear = getattr(model, "base_model", model), model.get_output_embeddings()
    if base is model or linear is None:
        return None
    rows = vocabulary_size(model)
    ids = ((torch.arange(_PROBE_TOKENS) * 7919 + rows // 2) % rows)[None].to(input_device(model))
    captured: list[Any] = []
    handle = base.register_forward_hook(lambda module, args, output: captured.append(output))
    try:
        logits = forward(model, ids).logits
    finally:
        handle.remove()
    # OPT's causal model calls the decoder inside its base model, past the hook.
    output = captured[0] if captured else forward(base, ids)
    hidden = getattr(output, "last_hidden_state", None)
    return None if hidden is None or hidden.shape[:2] != ids.shape else (hidden, logits)


@torch.no_grad()
def _agrees(head: Head, hidden: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether ``head`` makes the model's own logits, as far as rounding lets one see."""
    found = head.logits(hidden)
    if found.shape != expected.shape:
        return False
    allowed = _ROUNDINGS * torch.finfo(expected.dtype).eps * expected.abs().max().float()
    return bool((found.to(expected.device) - expected.float()).abs().max() <= allowed)


def _device_of(module: nn.Module, otherwise: torch.Tensor) -> torch.device:
    device = next((parameter.device for parameter in module.parameters()), otherwise.device)
    return otherwise.device if device.type == "meta" else device
