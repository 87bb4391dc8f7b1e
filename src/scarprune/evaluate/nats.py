"""Losses of single tokens; of all logits only a chunk exists at once."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F

from scarprune.models.head import Head
from scarprune.profile.loss import chunk_tokens

_TILE = 256  # rows of a matrix product that GPUs compute together: a chunk is a multiple, or its last is lost


def token_nats(
    head: Head, hidden: torch.Tensor, targets: torch.Tensor, vocabulary: int, *, fused: bool = False
) -> torch.Tensor:
    """Losses of ``targets`` [B, T] under ``hidden`` [B, T, D]: float32 [B, T], where the head is.

    ``fused`` compiles what follows the head's matrix product into one kernel for CUDA: it reads its output
    as it is, where cross-entropy needs float32 logits written and read several times.
    """
    states = hidden.reshape(-1, hidden.shape[-1])
    wanted = targets.reshape(-1).to(states.device)
    # As many bytes in either case: float32 logits, or the head's output in its own dtype.
    numbers = vocabulary * hidden.element_size() // 4 if fused else vocabulary
    step = chunk_tokens(numbers, states.device)
    step -= step % _TILE if step > _TILE else 0
    losses = []
    for start in range(0, len(states), step):
        output = head.linear(states[start : start + step])
        chosen = wanted[start : start + step].to(output.device)
        if fused:
            losses.append(_fused(output, chosen, head.scale, head.softcap))
        else:
            losses.append(_nats(head.finish(output), chosen))
    return torch.cat(losses).view(targets.shape)


def _nats(logits: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    if logits.device.type == "cuda":  # one kernel, where the plain way reads and writes all logits six times
        return F.cross_entropy(logits, chosen, reduction="none")
    # There F.cross_entropy adds up a large vocabulary less exactly, and to one side.
    return logits.logsumexp(-1) - logits.gather(-1, chosen[:, None]).squeeze(-1)


def nats_rows(
    output: torch.Tensor, chosen: torch.Tensor, factor: float, softcap: float | None
) -> torch.Tensor:
    """Losses [n] of the tokens ``chosen`` [n]; arguments as in ``profile.loss.loss_rows``."""
    logits = output.float() if factor == 1.0 else output.float() * factor
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    top = logits.amax(-1, keepdim=True)  # spelled out, so that the compiler finds softmax's one-pass form
    total = (logits - top).exp().sum(-1)
    return total.log() + top.squeeze(-1) - logits.gather(-1, chosen[:, None]).squeeze(-1)


def _fused(output: torch.Tensor, chosen: torch.Tensor, factor: float, softcap: float | None) -> torch.Tensor:
    for tensor in (output, chosen):
        torch._dynamo.maybe_mark_dynamic(tensor, 0)  # the last, shorter chunk needs no compilation then
    return _compiled()(output, chosen, factor, softcap)


@functools.cache
def _compiled() -> Callable[..., torch.Tensor]:
    return torch.compile(nats_rows)
