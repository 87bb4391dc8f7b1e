"""The forward KL divergence of a teacher to a student, without ever holding all logits.

The idea of fused linear losses (Liger-Kernel, arXiv 2410.10989): each chunk of logits is made, judged and
turned into its gradient at once, in the forward pass, so that only gradients of the size of hidden states and
of the head's weight outlive it.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from scarprune.models.head import Head
from scarprune.profile.loss import chunk_tokens

Rows = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def divergence(
    student: Head,
    hidden: torch.Tensor,
    teacher: Head,
    teacher_hidden: torch.Tensor,
    *,
    rows: Rows | None = None,
) -> torch.Tensor:
    """KL(teacher || student) in nats at temperature 1, summed over tokens; differentiable once.

    Args:
        student: its head; gradients reach its weight and bias where they are wanted.
        hidden: [..., D] from ``student.hidden``.
        teacher: the teacher's head, of the same vocabulary; its hidden size may be another.
        teacher_hidden: [..., D'] from ``teacher.hidden``, at the same tokens.
        rows: what to do with a chunk of logits; None is ``divergence_rows``, a compiled one is faster.
    """
    states = hidden.reshape(-1, hidden.shape[-1])
    targets = teacher_hidden.detach().reshape(-1, teacher_hidden.shape[-1])
    weight, bias = _linear(student)
    total: torch.Tensor = _Divergence.apply(  # type: ignore[no-untyped-call]
        states, weight, bias, targets, student, teacher, rows or divergence_rows
    )
    return total


def divergence_rows(teacher: torch.Tensor, student: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """KL per token, float32 [n], and d(KL)/d(student's logits) [n, V] in their dtype, softmax - softmax."""
    wanted = torch.log_softmax(teacher, -1, dtype=torch.float32)
    found = torch.log_softmax(student, -1, dtype=torch.float32)
    probability = wanted.exp()
    nats = (wanted - found).mul_(probability).sum(-1)
    return nats, found.exp_().sub_(probability).to(student.dtype)


class _Divergence(torch.autograd.Function):
    """Sums the divergence chunk by chunk and keeps its gradients for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        student: Head,
        teacher: Head,
        rows: Rows,
    ) -> torch.Tensor:
        wants_states, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        vocabulary = states.shape[-1] if weight is None else weight.shape[0]
        grad_states = torch.empty_like(states) if wants_states else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if wants_weight else None  # type: ignore[arg-type]
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if wants_bias else None  # type: ignore[arg-type]
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        chunks = math.ceil(len(states) / chunk_tokens(vocabulary, states.device))
        step = math.ceil(len(states) / chunks)  # chunks alike: one shape to compile for
        for start in range(0, len(states), step):
            chunk = states[start : start + step]
            raw = chunk if weight is None else F.linear(chunk, weight, bias)
            wanted = _raw(teacher, targets[start : start + step])
            nats, grad = rows(_shaped(teacher, wanted), _shaped(student, raw))
            total += nats.sum()
            grad = _through_shape(student, raw, grad).to(chunk.dtype)
            if grad_states is not None:
                grad_states[start : start + step] = grad if weight is None else grad @ weight
            if grad_weight is not None:
                grad_weight += grad.T @ chunk
            if grad_bias is not None:
                grad_bias += grad.sum(0, dtype=torch.float32)
        ctx.save_for_backward(grad_states, grad_weight, grad_bias)
        ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (weight, bias)]
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        grad_states, grad_weight, grad_bias = ctx.saved_tensors
        weight_dtype, bias_dtype = ctx.dtypes
        return (
            None if grad_states is None else grad_states * scale.to(grad_states.dtype),
            None if grad_weight is None else (grad_weight * scale).to(weight_dtype),
            None if grad_bias is None else (grad_bias * scale).to(bias_dtype),
            *(None,) * 4,
        )


def _linear(head: Head) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Weight [V, D] and bias [V] of a head; none where its hidden states are the logits."""
    if not head.chunked:
        return None, None
    linear: Any = head.model.get_output_embeddings()  # type: ignore[operator]
    return linear.weight, getattr(linear, "bias", None)


def _raw(head: Head, states: torch.Tensor) -> torch.Tensor:
    """What the linear head makes of ``states``, in the dtype of computing."""
    weight, bias = _linear(head)
    return states if weight is None else F.linear(states, weight, bias)


def _shaped(head: Head, raw: torch.Tensor) -> torch.Tensor:
    """Logits of what the linear head made: scaled and capped in float32, as ``Head.logits`` does."""
    if not head.chunked or (head.scale == 1.0 and head.softcap is None):
        return raw
    logits = raw.float() * head.scale
    return logits if head.softcap is None else head.softcap * torch.tanh(logits / head.softcap)


def _through_shape(head: Head, raw: torch.Tensor, grad: torch.Tensor) -> torch.Tensor:
    """From the gradient at the logits to that at what the linear head made."""
    if not head.chunked:
        return grad
    if head.softcap is not None:
        grad = grad * (1 - torch.tanh(raw.float() * (head.scale / head.softcap)).square())
    return grad if head.scale == 1.0 else grad * head.scale
