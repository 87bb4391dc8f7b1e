"""Training one layer to give wanted hidden states: Adam, with a cosine rate."""

import copy
import math
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from scarprune.cut.compensate.job import DEFAULT_STEPS, Bounds
from scarprune.cut.compensate.objective import Loss
from scarprune.models.compiled import compiled
from scarprune.profile.compiling import Compiling
from scarprune.profile.hidden import HiddenStates
from scarprune.profile.walk import Walk
from scarprune.runtime.graph import Graph, Leash, side_stream
from scarprune.runtime.memory import is_out_of_memory
from scarprune.runtime.progress import remark

# Of each matrix's root mean square: about 2e-3 on SmolLM2, where 0.19 is usual.
RATE = 1e-2
_BETAS = (0.9, 0.95)
_WARM_UP = 20  # steps over which the rate rises
_REHEARSED = 3  # steps before a CUDA graph is captured


@dataclass
class Pace:
    """How far a layer's training has come, by steps and by the clock, whichever is ahead."""

    steps: int | None
    seconds: float | None
    began: float = field(default_factory=time.perf_counter)

    def progress(self, step: int) -> float:
        """From 0 to 1 before ``step``; at 1 it is over."""
        by_clock = 0.0
        if self.seconds is not None:
            by_clock = (time.perf_counter() - self.began) / max(self.seconds, 1e-9)
        return min(1.0, max(by_clock, 0.0 if self.steps is None else step / self.steps))


def pace_of(bounds: Bounds, layers_left: int, elapsed: float) -> Pace:
    """The next layer's share of what ``bounds`` leave after ``elapsed`` seconds."""
    if bounds.seconds is None:
        return Pace(bounds.steps or DEFAULT_STEPS, None)
    return Pace(bounds.steps, max(0.0, bounds.seconds - elapsed) / layers_left)


class Trainee:
    """A layer in float32, and one step of training it.

    On a GPU it computes in bfloat16 (autocast; as good, docs/lab-log.md), and a step is one CUDA graph:
    launching its small kernels one by one would take longer than running them.
    """

    def __init__(self, index: int, module: nn.Module, given: HiddenStates, loss: Loss, rate: float) -> None:
        """Copy ``module``, which stays as it is.

        All of the layer's numbers are trained, attention and norms too: what a layer reads is no longer what
        its attention was trained on, and training that as well is worth a tenth of the loss that is left
        (docs/lab-log.md).

        Args:
            index: of the layer in the walk.
            module: the layer.
            given: hidden states before the layer.
            loss: of the states after it and those wanted.
            rate: the largest learning rate, as a share of the matrices' median root mean square.
        """
        self.index, self.walk, self.loss = index, given.walk, loss
        self.module = copy.deepcopy(module).float().requires_grad_()
        self.masters = dict(self.module.named_parameters())
        device = self.walk.device
        self._on_gpu = device.type == "cuda"
        sizes = [_size(values) for values in self.masters.values() if values.dim() > 1]
        self._rate = rate * (statistics.median(sizes) if sizes else 1.0)
        # One rate for all: with one for each, the optimizer would take a third of a small layer's step.
        self.optimizer = torch.optim.Adam(
            self.masters.values(),
            lr=torch.zeros((), device=device) if self._on_gpu else 0.0,
            betas=_BETAS,
            fused=self._on_gpu,
            capturable=self._on_gpu,
        )

    def step(self, hidden: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor]:
        """One step on a batch [B, T, D]; gives the loss before it."""
        with torch.enable_grad(), narrow(self.walk):
            loss = self.loss(self.walk.step(self.index, hidden, self.module), wanted)
        gradients = torch.autograd.grad(loss, list(self.masters.values()))
        for values, gradient in zip(self.masters.values(), gradients, strict=True):
            values.grad = gradient
        self.optimizer.step()
        return (loss.detach(),)

    def set_rate(self, factor: float) -> None:
        """Set the learning rate to ``factor`` of its largest."""
        group = self.optimizer.param_groups[0]
        if self._on_gpu:
            group["lr"].fill_(self._rate * factor)
        else:
            group["lr"] = self._rate * factor


def narrow(walk: Walk) -> torch.autocast:
    """bfloat16 products for layers in float32: on a GPU, and where the states between layers are narrower."""
    wanted = walk.device.type == "cuda" or walk.model.dtype != torch.float32
    return torch.autocast(walk.device.type, dtype=torch.bfloat16, enabled=wanted)


def train(
    trainee: Trainee,
    given: HiddenStates,
    wanted: HiddenStates,
    pace: Pace,
    *,
    seed: int,
    batch: int,
    compiling: Compiling,
) -> dict[str, torch.Tensor]:
    """Train until ``pace`` says it is over; name -> trained values, float32.

    Args:
        trainee: the layer.
        given: hidden states before it.
        wanted: hidden states of the same tokens that it should give.
        pace: how long.
        seed: of the order of the blocks.
        batch: blocks of a step.
        compiling: whether the layer is compiled, where all blocks have one length; one compilation serves
            layers alike, and where the compiler fails the rest runs without.
    """
    draws, leash = given.draws(seed, batch), Leash(given.walk.device)
    learn = _Learn(trainee, given, wanted)
    one_shape = len(given.states) == 1
    step = 0
    with ExitStack() as compilation, side_stream(given.walk.device):
        if compiling.on and one_shape:
            compilation.enter_context(compiled([trainee.module]))
        while (progress := pace.progress(step)) < 1:
            trainee.set_rate(min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * progress)))
            length, rows = next(draws)
            if step == _REHEARSED and one_shape and given.walk.device.type == "cuda":
                learn.capture(length, rows)
            try:
                learn(length, rows)
            except Exception as error:
                if is_out_of_memory(error) or not compiling.gives_up(error):
                    raise
                compilation.close()
                learn(length, rows)
            leash.step()
            step += 1
    return {name: values.detach() for name, values in trainee.masters.items()}


class _Learn:
    """Steps of a trainee on blocks of the text."""

    def __init__(self, trainee: Trainee, given: HiddenStates, wanted: HiddenStates) -> None:
        self._trainee, self._given, self._wanted = trainee, given, wanted
        self._run: Callable[..., Any] = self._step

    def __call__(self, length: int, rows: torch.Tensor) -> None:
        """Learn from the blocks ``rows`` [B] among those of ``length``."""
        self._run(length, rows)

    def capture(self, length: int, rows: torch.Tensor) -> None:
        """Steps are one CUDA graph from now on, the taking of states that lie on the device included.

        Where the kernels cannot be captured they stay as they are.
        """
        take, step = self._take, self._trainee.step
        inside = all(states.states[length].is_cuda for states in (self._given, self._wanted))
        try:
            if inside:
                whole = Graph(lambda rows: step(*take(length, rows)), rows)
                self._run = lambda _, rows: whole(rows)
            else:
                graph = Graph(step, *take(length, rows))
                self._run = lambda _, rows: graph(*take(length, rows))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            torch.cuda.synchronize()
            remark(f"Layer {self._trainee.index} is trained without a CUDA graph, and slower for it: {error}")

    def _step(self, length: int, rows: torch.Tensor) -> None:
        self._trainee.step(*self._take(length, rows))

    def _take(self, length: int, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._given.take(length, rows), self._wanted.take(length, rows)


def _size(values: torch.Tensor) -> float:
    return float(values.detach().square().mean().sqrt())
