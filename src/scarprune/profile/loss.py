"""The gradient of the summed loss at the last hidden states, without ever holding all logits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from scarprune.models.head import Head

_CHUNK_BYTES = {"cuda": 512 << 20}  # float32 logits of one chunk; small enough for a CPU's cache elsewhere
_CHUNK_BYTES_ELSEWHERE = 16 << 20


@dataclass(frozen=True)
class LossGradient:
    """Per kind of labels: the summed loss (nats, on the device) and its gradient at ``hidden``."""

    loss: Mapping[str, torch.Tensor]
    gradient: Mapping[str, torch.Tensor]


def chunk_tokens(vocabulary: int, device: torch.device) -> int:
    """Tokens whose float32 logits are held at once."""
    budget = _CHUNK_BYTES.get(device.type, _CHUNK_BYTES_ELSEWHERE)
    return max(64, budget // (4 * vocabulary))


def loss_gradient(
    head: Head,
    hidden: torch.Tensor,
    ids: torch.Tensor,
    kinds: Sequence[str],
    uniforms: torch.Tensor | None,
    vocabulary: int,
    scale: float = 1.0,
) -> LossGradient:
    """Cross-entropy summed over the targets of ``ids`` [B, T], times ``scale``, and d(loss)/d(hidden).

    Args:
        hidden: [B, T, D] from ``head.hidden``; the last position of a block predicts nothing.
        kinds: ``data`` (the next token of the text) and/or ``model`` (a token sampled from the model).
        uniforms: [B, T - 1] in [0, 1), one draw per target, for ``model``.
    """
    states = hidden.detach()[:, :-1].reshape(-1, hidden.shape[-1])
    data_targets = ids[:, 1:].reshape(-1).to(hidden.device)
    draws = None if uniforms is None else uniforms.reshape(-1).to(hidden.device)
    gradient = {kind: torch.zeros_like(hidden) for kind in kinds}
    flat = {kind: torch.empty_like(states) for kind in kinds}
    loss = {kind: torch.zeros((), device=hidden.device) for kind in kinds}
    step = chunk_tokens(vocabulary, hidden.device)
    for start in range(0, len(states), step):
        part = slice(start, start + step)
        with torch.enable_grad():
            chunk = states[part].requires_grad_()
            logits = head.logits(chunk)
            for kind in kinds:
                targets = data_targets[part].to(logits.device)
                if kind == "model":
                    assert draws is not None
                    targets = sample(logits.detach(), draws[part].to(logits.device))
                nats = F.cross_entropy(logits, targets, reduction="sum")
                (grad,) = torch.autograd.grad(nats * scale, chunk, retain_graph=kind != kinds[-1])
                flat[kind][part] = grad
                loss[kind] += nats.detach().to(hidden.device)
    for kind in kinds:
        gradient[kind][:, :-1] = flat[kind].view(hidden.shape[0], -1, hidden.shape[-1])
    return LossGradient(loss, gradient)


def sample(logits: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """One token a row from softmax(logits) [n, V] by inverting its distribution at ``draws`` [n]."""
    cumulative = logits.softmax(-1).cumsum(-1)
    tokens = torch.searchsorted(cumulative, (draws * cumulative[:, -1]).unsqueeze(-1), right=True)
    return tokens.squeeze(-1).clamp_(max=logits.shape[-1] - 1)


def block_uniforms(seed: int, blocks: Sequence[int], targets: int) -> torch.Tensor:
    """float32 [len(blocks), targets]: draws that depend on seed, block and position alone (Philox)."""
    rows = [np.random.Generator(np.random.Philox(key=[seed, block])).random(targets) for block in blocks]
    return torch.from_numpy(np.stack(rows).astype(np.float32))
