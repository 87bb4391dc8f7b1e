"""The student's side of a step: a part of a batch to its loss and gradient, and the optimizer."""

from collections.abc import Mapping

import torch

from scarprune.distill.reader import read
from scarprune.distill.weights import Weights
from scarprune.models.head import Head
from scarprune.profile.divergence import Rows, divergence
from scarprune.runtime.graph import Graph, Tensors
from scarprune.runtime.ranks import Ranks

_BETAS = (0.9, 0.95)
_MOMENTS = ("exp_avg", "exp_avg_sq")


class Learner:
    """Adds up gradients of the mean objective over ``step_tokens`` and takes steps of AdamW.

    Attributes:
        head: the student's.
        weights: what is trained.
        nats: float32 [], divergence summed over the tokens since it was last set to zero.
        optimizer: AdamW over one tensor.
    """

    def __init__(
        self,
        head: Head,
        teacher: Head,
        weights: Weights,
        step_tokens: int,
        hidden_weight: float,
        rows: Rows | None,
    ) -> None:
        self.head = head
        self._teacher = teacher
        self.weights = weights
        self.nats = torch.zeros((), device=weights.master.device)
        self.optimizer = torch.optim.AdamW(
            [weights.master],
            lr=0.0,
            betas=_BETAS,
            weight_decay=0.0,
            fused=weights.master.device.type in ("cpu", "cuda"),
        )
        self._step_tokens = step_tokens
        self._hidden_weight = hidden_weight
        self._rows = rows
        self._graph: Graph | None = None

    def learn(self, ids: torch.Tensor, wanted: Tensors) -> None:
        """Add the gradient of ``ids`` [B, T], for which the teacher has the hidden states ``wanted``."""
        (self._graph or self._learn)(ids, *wanted)

    def capture(self, ids: torch.Tensor, wanted: Tensors) -> None:
        """Learn by a CUDA graph from now on; ``learn`` has run with these shapes before."""
        self._graph = Graph(self._learn, ids, *wanted)

    def release(self) -> None:
        """Learn without a CUDA graph again."""
        self._graph = None

    def compile_nothing(self) -> None:
        """Take chunks of logits by plain operations from now on."""
        self._rows = None

    def forget(self) -> None:
        """Drop the gradient and the loss that are added up."""
        self.weights.gradient.zero_()
        self.nats.zero_()

    def step(self, rate: float, clip: float, ranks: Ranks) -> None:
        """Move the weights by the gradient of all processes, and begin a new one."""
        gradient = self.weights.gradient
        ranks.add_up(gradient)
        gradient.mul_((clip / (torch.linalg.vector_norm(gradient) + 1e-6)).clamp(max=1.0))
        self.optimizer.param_groups[0]["lr"] = rate
        self.optimizer.step()
        self.weights.publish()
        gradient.zero_()

    def moments(self) -> dict[str, torch.Tensor]:
        """What the optimizer remembers, besides its number of steps."""
        state = self.optimizer.state[self.weights.master]
        return {key: state[key] for key in _MOMENTS}

    def restore(self, moments: Mapping[str, torch.Tensor], step: int) -> None:
        """Go on as after ``step`` steps that left ``moments``."""
        device = self.weights.master.device
        self.optimizer.state[self.weights.master] = {
            "step": torch.tensor(float(step), device=device),
            **{key: moments[key].to(device) for key in _MOMENTS},
        }

    def _learn(self, ids: torch.Tensor, *wanted: torch.Tensor) -> Tensors:
        with torch.enable_grad():
            final, *between = read(self.head, ids, len(wanted) > 1)
            nats = divergence(self.head, final, self._teacher, wanted[0], rows=self._rows)
            objective = nats / self._step_tokens
            if between:
                far = sum(_distance(*pair) for pair in zip(between, wanted[1:], strict=True))
                objective = objective + far * (self._hidden_weight / (len(between) * self._step_tokens))
            gradients = torch.autograd.grad(objective, self.weights.trained, allow_unused=True)
        self.weights.add_gradients(gradients)
        self.nats += nats.detach()
        return (self.nats,)


def _distance(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Squared error of each token's hidden state over the square of what is wanted, summed over tokens."""
    wanted = wanted.float()
    error = (found.float() - wanted).square().sum(-1)
    return (error / wanted.square().sum(-1).clamp_min(torch.finfo(torch.float32).tiny)).sum()
