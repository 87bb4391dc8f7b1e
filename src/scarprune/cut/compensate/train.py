"""Training one layer to give wanted hidden states: Adam, with a cosine rate."""

import copy
import math
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from scarprune.cut.compensate.job import DEFAULT_STEPS, Bounds
from scarprune.cut.compensate.objective import Loss
from scarprune.errors import first_line
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
_AGREES = 1e-2  # of the largest state: rounding alone stays below it


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
    """A layer in float32, and steps of training it on blocks of the text.

    On a GPU it computes in bfloat16 (autocast; as good, docs/lab-log.md), and a step is one CUDA graph:
    launching its small kernels one by one would take longer than running them.
    """

    def __init__(
        self,
        index: int,
        module: nn.Module,
        given: HiddenStates,
        wanted: HiddenStates,
        loss: Loss,
        rate: float,
    ) -> None:
        """Copy ``module``, which stays as it is.

        All of the layer's numbers are trained, attention and norms too: what a layer reads is no longer what
        its attention was trained on, and training that as well is worth a tenth of the loss that is left
        (docs/lab-log.md).

        Args:
            index: of the layer in the walk.
            module: the layer.
            given: hidden states before the layer.
            wanted: hidden states of the same tokens that it should give.
            loss: of the states after it and those wanted.
            rate: the largest learning rate, as a share of the matrices' median root mean square.
        """
        self.index, self.walk, self.loss, self.rate = index, given.walk, loss, rate
        self.given, self.wanted = given, wanted
        self.module = copy.deepcopy(module).float().requires_grad_()
        self.masters = dict(self.module.named_parameters())
        self._on_gpu = self.walk.device.type == "cuda"
        # One rate for all: with one for each, the optimizer would take a third of a small layer's step.
        self.optimizer = torch.optim.Adam(
            self.masters.values(),
            lr=torch.zeros((), device=self.walk.device) if self._on_gpu else 0.0,
            betas=_BETAS,
            fused=self._on_gpu,
            capturable=self._on_gpu,
        )
        self._graph: Graph | None = None
        self._takes = False  # whether the graph takes the states by itself
        self._see_sizes()

    @property
    def one_shape(self) -> bool:
        """Whether all blocks have one length."""
        return len(self.given.states) == 1

    def learn(self, length: int, rows: torch.Tensor) -> None:
        """One step on the blocks ``rows`` [B] among those of ``length``."""
        if self._graph is None:
            self.step(*self._take(length, rows))
        elif self._takes:
            self._graph(rows)
        else:
            self._graph(*self._take(length, rows))

    def capture(self, length: int, rows: torch.Tensor) -> None:
        """Steps are one CUDA graph from now on, the taking of states that lie on the device included.

        Where the kernels cannot be captured they stay as they are.
        """
        self._takes = all(states.states[length].is_cuda for states in (self.given, self.wanted))
        try:
            if self._takes:
                self._graph = Graph(lambda rows: self.step(*self._take(length, rows)), rows)
            else:
                self._graph = Graph(self.step, *self._take(length, rows))
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            torch.cuda.synchronize()
            remark(
                f"Layer {self.index} is trained without a CUDA graph, and slower for it: {first_line(error)}"
            )

    @property
    def captured(self) -> bool:
        """Whether steps are a CUDA graph."""
        return self._graph is not None

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
            group["lr"].fill_(self._largest * factor)
        else:
            group["lr"] = self._largest * factor

    # -- another layer -----------------------------------------------------------------------------

    def take_over(self, index: int, module: nn.Module, loss: Loss) -> bool:
        """Become the trainee of layer ``index``, where that is the same function of other weights.

        What was set up for the one, a CUDA graph above all, so serves the other. Where it is False, this
        trainee is good for nothing more.
        """
        if loss is not self.loss or not self.one_shape:
            return False
        fresh = copy.deepcopy(module).float()
        values = dict(fresh.named_parameters())
        if values.keys() != self.masters.keys():
            return False
        if any(values[name].shape != master.shape for name, master in self.masters.items()):
            return False
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(values[name])
        if not self._is_alike(index, fresh):
            return False
        for state in self.optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()
        self.index = index
        self._see_sizes()
        return True

    @torch.no_grad()
    def _is_alike(self, index: int, module: nn.Module) -> bool:
        """Whether layer ``index`` is called with the same, and gives the same, of a block of the text."""
        (length,) = self.given.states
        hidden = self.given.take(length, torch.zeros(1, dtype=torch.int64))
        calls = self.walk.calls(1, length)
        if not _same(calls[index], calls[self.index]):
            return False
        with narrow(self.walk):
            found = self.walk.step(self.index, hidden, self.module)
            expected = self.walk.step(index, hidden, module)
        return torch.allclose(found, expected, rtol=_AGREES, atol=_AGREES * float(expected.abs().max()))

    def _see_sizes(self) -> None:
        sizes = [_size(values) for values in self.masters.values() if values.dim() > 1]
        self._largest = self.rate * (statistics.median(sizes) if sizes else 1.0)

    def _take(self, length: int, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.given.take(length, rows), self.wanted.take(length, rows)


def _same(one: Any, other: Any) -> bool:
    """Whether two calls have the same arguments: the very tensors, and equal values."""
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return one is other
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return one is other or bool(one == other)


def narrow(walk: Walk) -> torch.autocast:
    """bfloat16 products for layers in float32: on a GPU, and where the states between layers are narrower."""
    wanted = walk.device.type == "cuda" or walk.model.dtype != torch.float32
    return torch.autocast(walk.device.type, dtype=torch.bfloat16, enabled=wanted)


def train(
    trainee: Trainee, pace: Pace, *, seed: int, batch: int, compiling: Compiling
) -> dict[str, torch.Tensor]:
    """Train until ``pace`` says it is over; name -> trained values, float32, the trainee's own.

    Args:
        trainee: the layer.
        pace: how long.
        seed: of the order of the blocks.
        batch: blocks of a step.
        compiling: whether the layer is compiled, where all blocks have one length; one compilation serves
            layers alike, and where the compiler fails the rest runs without.
    """
    device = trainee.walk.device
    draws, leash = trainee.given.draws(seed, batch), Leash(device)
    step = 0
    with ExitStack() as compilation, side_stream(device):
        if compiling.on and trainee.one_shape:
            compilation.enter_context(compiled([trainee.module]))
        while (progress := pace.progress(step)) < 1:
            trainee.set_rate(min(1.0, (step + 1) / _WARM_UP) * 0.5 * (1 + math.cos(math.pi * progress)))
            length, rows = next(draws)
            if step == _REHEARSED and trainee.one_shape and device.type == "cuda" and not trainee.captured:
                trainee.capture(length, rows)
            try:
                trainee.learn(length, rows)
            except Exception as error:
                if is_out_of_memory(error) or not compiling.gives_up(error):
                    raise
                compilation.close()
                trainee.learn(length, rows)
            leash.step()
            step += 1
    return {name: values.detach() for name, values in trainee.masters.items()}


def _size(values: torch.Tensor) -> float:
    return float(values.detach().square().mean().sqrt())
