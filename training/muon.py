"""Muon for many small matrices: those of one shape are orthogonalised together.

The update rule is that of ``torch.optim.Muon`` with ``adjust_lr_fn="match_rms_adamw"`` (Jordan 2024; scale of
Liu et al. 2025, arXiv:2502.16982): Nesterov momentum, five Newton-Schulz steps in bfloat16, and decoupled
weight decay. That one goes matrix by matrix; here a model's matrices are a few stacks.
"""

from collections import defaultdict

import torch

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def orthogonalize(matrices_NRC: torch.Tensor) -> torch.Tensor:
    """bfloat16 [N, R, C] with R <= C: each matrix with its singular values moved to about one."""
    a, b, c = _COEFFICIENTS
    x = matrices_NRC.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


class Muon:
    """Optimizer of all matrices given; set ``rate`` before each ``step``."""

    def __init__(
        self, matrices: list[torch.nn.Parameter], weight_decay: float, momentum: float = 0.95
    ) -> None:
        self.rate, self.weight_decay, self.momentum = 0.0, weight_decay, momentum
        by_shape = defaultdict(list)
        for matrix in matrices:
            by_shape[tuple(matrix.shape)].append(matrix)
        self._groups = [(same, torch.zeros_like(torch.stack(list(same)))) for same in by_shape.values()]

    @torch.no_grad()
    def step(self) -> None:
        for matrices, average in self._groups:
            gradient = torch.stack([matrix.grad for matrix in matrices])
            average.lerp_(gradient, 1 - self.momentum)
            update = gradient.lerp(average, self.momentum)
            tall = update.shape[-2] > update.shape[-1]
            update = orthogonalize(update.mT).mT if tall else orthogonalize(update)
            scale = 0.2 * max(update.shape[-2:]) ** 0.5
            torch._foreach_mul_(matrices, 1 - self.rate * self.weight_decay)
            torch._foreach_add_(matrices, list(update.to(average.dtype).unbind()), alpha=-self.rate * scale)
