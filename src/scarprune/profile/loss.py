"""The gradient of the summed loss at the last hidden states, without ever holding all logits."""

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from scarprune.models.head import Head
from scarprune.models.tensor_parallel import Gathered

_CHUNK_BYTES = {"cuda": 512 << 20}  # float32 logits of one chunk; small enough for a CPU's cache elsewhere
_CHUNK_BYTES_ELSEWHERE = 16 << 20
NO_TARGET = -1


@dataclass(frozen=True)
class LossGradient:
    """Per kind of labels: the summed loss (nats, on the device) and its gradient at ``hidden``."""

    loss: Mapping[str, torch.Tensor]
    gradient: Mapping[str, torch.Tensor]


def chunk_tokens(vocabulary: int, device: torch.device, most: int | None = None) -> int:
    """Tokens whose float32 logits are held at once: ``most`` bytes of them, where that is given."""
    budget = _CHUNK_BYTES.get(device.type, _CHUNK_BYTES_ELSEWHERE)
    budget = budget if most is None else min(budget, most)
    return max(64, budget // (4 * vocabulary))


def loss_gradient(
    head: Head,
    hidden: torch.Tensor,
    ids: torch.Tensor,
    kinds: Sequence[str],
    uniforms: torch.Tensor | None,
    vocabulary: int,
    scale: float = 1.0,
    rows: "Rows | None" = None,
) -> LossGradient:
    """Cross-entropy summed over the targets of ``ids`` [B, T], times ``scale``, and d(loss)/d(hidden).

    Args:
        hidden: [B, T, D] from ``head.hidden``; the last position of a block predicts nothing.
        kinds: ``data`` (the next token of the text) and/or ``model`` (a token sampled from the model).
        uniforms: [B, T - 1] in [0, 1), one draw per target, for ``model``.
        rows: what to do with a chunk of the head's output; compiled it is faster.
    """
    rows, part_of = rows or Rows(), head.in_parts
    states = hidden.detach().flatten(0, 1)
    targets = F.pad(ids[:, 1:].to(hidden.device), (0, 1), value=NO_TARGET).flatten()
    draws = None if uniforms is None else F.pad(uniforms.to(hidden.device), (0, 1)).flatten()
    gradient = {kind: torch.empty_like(states) for kind in kinds}
    loss = {kind: torch.zeros((), device=hidden.device) for kind in kinds}
    chunks = math.ceil(len(states) / chunk_tokens(vocabulary, hidden.device, head.chunk_bytes))
    step = math.ceil(len(states) / chunks)  # chunks alike: one shape to compile for
    for start in range(0, len(states), step):
        part = slice(start, start + step)
        with torch.enable_grad():
            chunk = states[part].requires_grad_()
            output = head.linear(chunk) if part_of is None else part_of.part_of_output(chunk)
        for kind in kinds:
            wanted = targets[part].to(output.device)
            if kind == "model":
                assert draws is not None
                every = output.detach() if part_of is None else part_of.joined(output.detach())
                drawn = sample(head.finish(every), draws[part].to(output.device))
                wanted = torch.where(wanted == NO_TARGET, wanted, drawn)
            arguments = output.detach(), wanted, scale, head.scale, head.softcap
            nats, at_output = rows.whole(*arguments) if part_of is None else rows.part(part_of, *arguments)
            (gradient[kind][part],) = torch.autograd.grad(
                output, chunk, at_output, retain_graph=kind != kinds[-1]
            )
            loss[kind] += nats.to(hidden.device)
    return LossGradient(loss, {kind: flat.view_as(hidden) for kind, flat in gradient.items()})


class Rows:
    """A chunk of the head's output: its cross-entropy, and the gradient there."""

    def __init__(self, compiled: bool = False) -> None:
        # For each size of vocabulary by itself: a kernel for any size takes six times as long.
        code = functools.partial(torch.compile, dynamic=False) if compiled else lambda function: function
        self.whole, self._loss, self._gradient = map(code, (loss_rows, part_of_loss, part_of_gradient))

    @torch.no_grad()
    def part(
        self,
        of: Gathered,
        output: torch.Tensor,
        targets: torch.Tensor,
        scale: float,
        factor: float,
        softcap: float | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """``loss_rows`` where each process has the ``output`` of its own part of the vocabulary.

        Two numbers a row go between them, not the logits (Megatron-LM, arXiv 1909.08053, section 3).
        """
        counts = targets != NO_TARGET
        here = torch.where(counts, targets - of.start, NO_TARGET)
        parts, logits = of.of_all(self._loss(output, here, factor, softcap)).unbind(1)
        whole = parts.logsumexp(0)
        nats = ((whole - logits.sum(0)) * counts).sum()
        return nats, self._gradient(output, here, whole, scale * counts, factor, softcap)


def loss_rows(
    output: torch.Tensor, targets: torch.Tensor, scale: float, factor: float, softcap: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of a chunk and its gradient: softmax minus one-hot, through cap and factor.

    One read and one write per element where a compiler fuses it.

    Args:
        output: [n, V], of the linear head, detached.
        targets: [n]; rows of ``NO_TARGET`` do not count.
        scale: of the loss.
        factor: of the head's output, which makes logits; then c of c * tanh(logits / c), or None.

    Returns:
        The sum in nats, not scaled, and the scaled gradient at ``output``, in its dtype.
    """
    logits = output.float() if factor == 1.0 else output.float() * factor
    slope = factor * scale * (targets != NO_TARGET).float()[:, None]
    if softcap is not None:
        bent = torch.tanh(logits / softcap)
        logits, slope = softcap * bent, slope * (1 - bent * bent)
    log_p = logits.log_softmax(-1)
    nats = -(log_p.gather(-1, targets.clamp(min=0)[:, None])[:, 0] * (targets != NO_TARGET)).sum()
    # Compared, not scattered: that is a step of the same kernel. In place: an eager chunk is large.
    hit = torch.arange(output.shape[-1], device=output.device) == targets[:, None]
    gradient = log_p.exp_().sub_(hit.to(log_p.dtype)).mul_(slope)
    return nats, gradient.to(output.dtype)


def part_of_loss(
    output: torch.Tensor, here: torch.Tensor, factor: float, softcap: float | None
) -> torch.Tensor:
    """Of a part of the vocabulary: log-sum-exp of each row's logits, and its target's logit or 0: [2, n].

    Args:
        output: [n, V'], of the linear head, detached.
        here: [n], the target's place in the part; none where there is no such place.
    """
    logits = output.float() if factor == 1.0 else output.float() * factor
    if softcap is not None:
        logits = softcap * torch.tanh(logits / softcap)
    inside = (here >= 0) & (here < output.shape[-1])
    found = logits.gather(-1, here.clamp(0, output.shape[-1] - 1)[:, None])[:, 0]
    return torch.stack([logits.logsumexp(-1), torch.where(inside, found, 0.0)])


def part_of_gradient(
    output: torch.Tensor,
    here: torch.Tensor,
    whole: torch.Tensor,
    slope: torch.Tensor,
    factor: float,
    softcap: float | None,
) -> torch.Tensor:
    """The gradient at ``output``, in its dtype; ``whole`` [n] is the log-sum-exp of all parts together."""
    logits, slopes = output.float() if factor == 1.0 else output.float() * factor, factor * slope[:, None]
    if softcap is not None:
        bent = torch.tanh(logits / softcap)
        logits, slopes = softcap * bent, slopes * (1 - bent * bent)
    hit = torch.arange(output.shape[-1], device=output.device) == here[:, None]
    return ((logits - whole[:, None]).exp().sub(hit.to(logits.dtype)) * slopes).to(output.dtype)


def sample(logits: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """One token a row from softmax(logits) [n, V] by inverting its distribution at ``draws`` [n]."""
    cumulative = logits.softmax(-1).cumsum(-1)
    tokens = torch.searchsorted(cumulative, (draws * cumulative[:, -1]).unsqueeze(-1), right=True)
    return tokens.squeeze(-1).clamp_(max=logits.shape[-1] - 1)


def block_uniforms(seed: int, blocks: Sequence[int], targets: int) -> torch.Tensor:
    """float32 [len(blocks), targets]: draws that depend on seed, block and position alone (Philox)."""
    rows = [np.random.Generator(np.random.Philox(key=[seed, block])).random(targets) for block in blocks]
    return torch.from_numpy(np.stack(rows).astype(np.float32))
