"""Each layer trained so that the cut model gives the dense one's hidden states, the last its predictions.

In sequence: a layer is given what the cut model's earlier layers make, and must give what the dense model has
after that layer, so that it also makes up for what earlier layers could not.
"""

import contextlib
import math
import time
from collections.abc import Iterator

import torch
from torch import nn
from torch.func import functional_call

from scarprune.cut.compensate.compensation import Compensation, Fitted, Weights
from scarprune.cut.compensate.job import DEFAULT_STEPS, Job, facts_of
from scarprune.cut.compensate.objective import Loss, objectives
from scarprune.cut.compensate.ridge import solve
from scarprune.cut.compensate.train import RATE, Trainee, narrow, pace_of, train
from scarprune.models.norms import fused_norms
from scarprune.profile.compiling import Compiling
from scarprune.profile.gram import layer_grams
from scarprune.profile.hidden import HiddenStates
from scarprune.profile.walk import Layer, Walk
from scarprune.runtime.memory import available_bytes

# On an H100 compiling takes some 15 s, and takes 0.45 ms off a step of 4,096 tokens at hidden size 576: reads
# and writes of hidden states, so that what is saved grows with tokens and hidden size (docs/lab-log.md).
_SECONDS_TO_COMPILE, _SAVED_PER_NUMBER = 15.0, 0.45e-3 / (4096 * 576)
_BYTES_A_WEIGHT = 16  # itself, its gradient and two moments, in float32
_SHARE_OF_FREE = 0.02  # of memory; larger layers train for so long that setting up again does not count
_WORTH_SECONDS = 40.0  # of training in all, from which twice the speed makes up for compiling


def fit(job: Job, rate: float = RATE) -> Iterator[Fitted]:
    """Least squares, then training, layer by layer; of the cut, both, the best on held-out text is kept."""
    walk, held_walk = job.walks()
    compiling = Compiling(_compiles(job, walk), walk.blocks.lengths)
    with contextlib.nullcontext() if compiling.on else fused_norms(job.model, float32=True):
        yield from _layers(job, walk, held_walk, compiling, rate)


def _layers(job: Job, walk: Walk, held_walk: Walk, compiling: Compiling, rate: float) -> Iterator[Fitted]:
    dense, dense_held = HiddenStates(walk), HiddenStates(held_walk)
    given, given_held = HiddenStates(walk), HiddenStates(held_walk)
    losses, held_losses = objectives(walk), objectives(held_walk)
    elapsed, trainee = 0.0, None
    for index, layer in enumerate(walk.layers):
        with narrow(walk):
            gram, held = layer_grams(dense, index)[0], layer_grams(dense_held, index)[0]
        solved = solve(job, layer.site, gram, held)
        del gram, held
        module = job.cut(layer)
        weights: dict[str, Weights] = {"none": {}, "ls": solved.weights}
        began = time.perf_counter()
        _set(module, layer, solved.weights)
        pace = pace_of(job.bounds, len(walk.layers) - index, elapsed)
        if trainee is None or not trainee.take_over(index, module, losses[index]):
            trainee = None  # what it holds is free for the next
            trainee = Trainee(index, module, given, dense, losses[index], rate)
        values = train(trainee, pace, seed=index, batch=job.batch, compiling=compiling)
        elapsed += time.perf_counter() - began
        full = {f"{layer.name}.{name}": value for name, value in values.items()}
        weights["refit"] = {name: job.rounded(name, value) for name, value in full.items()}
        del values, full
        if not _stays(trainee):
            trainee = None
        module = job.cut(layer)
        with narrow(walk):
            errors = {
                step: _error(index, module, layer, changed, given_held, dense_held, held_losses[index])
                for step, changed in weights.items()
            }
            kept = min(errors, key=lambda step: errors[step] if math.isfinite(errors[step]) else math.inf)
            _set(module, layer, weights[kept])
            given.advance(index, module)
            given_held.advance(index, module)
        facts = facts_of(errors, kept, damping=solved.damping, condition=solved.condition)
        yield Fitted(layer.site, {"ls": weights["ls"], "refit": weights[kept]}, facts)


def _stays(trainee: Trainee) -> bool:
    """Whether the memory of a layer in training may be held while the text walks on."""
    device = trainee.walk.device
    needed = _BYTES_A_WEIGHT * sum(values.numel() for values in trainee.masters.values())
    return needed <= _SHARE_OF_FREE * available_bytes(device)


def _compiles(job: Job, walk: Walk) -> bool:
    """Whether compiling the layers pays, which are alike: on a GPU, where it saves more than it takes."""
    if walk.device.type != "cuda":
        return False
    if job.bounds.steps is None and job.bounds.seconds is not None:
        return job.bounds.seconds >= _WORTH_SECONDS
    steps = len(walk.layers) * (job.bounds.steps or DEFAULT_STEPS)
    numbers = steps * job.bounds.tokens * walk.layers[0].site.hidden
    return numbers * _SAVED_PER_NUMBER > _SECONDS_TO_COMPILE


def _set(module: nn.Module, layer: Layer, weights: Weights) -> None:
    """Give the cut copy of a layer new values."""
    for name, values in weights.items():
        path, _, parameter = name.removeprefix(f"{layer.name}.").rpartition(".")
        owner = module.get_submodule(path)
        there = getattr(owner, parameter)  # what was not cut is still the dense layer's own: never written to
        setattr(owner, parameter, nn.Parameter(values.to(there), requires_grad=False))


@torch.no_grad()
def _error(
    index: int,
    module: nn.Module,
    layer: Layer,
    weights: Weights,
    given: HiddenStates,
    wanted: HiddenStates,
    loss: Loss,
) -> float:
    """The mean loss over held-out blocks of a cut layer with ``weights``."""
    device = given.walk.device
    changed = {name.removeprefix(f"{layer.name}."): values.to(device) for name, values in weights.items()}
    total = torch.zeros((), device=device)
    blocks = 0
    for batch in range(len(given)):
        hidden = given[batch]
        after = given.walk.step(
            index, hidden, lambda *args, **kwargs: functional_call(module, changed, args, kwargs)
        )
        total += loss(after, wanted[batch]) * len(hidden)
        blocks += len(hidden)
    return float(total) / blocks


COMPENSATION = Compensation(
    name="refit",
    description="each layer trained to give the dense model's hidden states, starting from ls",
    source="scarprune",
    steps=("ls", "refit"),
    fit=fit,
    trains=True,
)
