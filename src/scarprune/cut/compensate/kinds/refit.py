"""Gate, up and down of each layer trained so that the cut model gives the dense one's hidden states.

In sequence: a layer is given what the cut model's earlier layers make, and must give what the dense model has
after that layer, so that it also makes up for what earlier layers could not.
"""

import math
import time
from collections.abc import Iterator

import torch
from torch import nn
from torch.func import functional_call

from scarprune.cut.compensate.compensation import Compensation, Fitted, Weights
from scarprune.cut.compensate.job import Job, facts_of
from scarprune.cut.compensate.objective import Loss, Objective, squared
from scarprune.cut.compensate.ridge import solve
from scarprune.cut.compensate.train import RATE, pace_of, train
from scarprune.profile.gram import layer_grams
from scarprune.profile.hidden import HiddenStates
from scarprune.profile.walk import Layer


def fit(job: Job, objective: Objective = squared, rate: float = RATE) -> Iterator[Fitted]:
    """Least squares, then training, layer by layer; of the cut, both, the best on held-out text is kept."""
    walk, held_walk = job.walks()
    dense, dense_held = HiddenStates(walk), HiddenStates(held_walk)
    given, given_held = HiddenStates(walk), HiddenStates(held_walk)
    elapsed = 0.0
    for index, layer in enumerate(walk.layers):
        gram, held = layer_grams(dense, index)[0], layer_grams(dense_held, index)[0]
        solved = solve(job, layer.site, gram, held)
        del gram, held
        module, loss = job.cut(layer), objective(index, solved.energy)
        weights: dict[str, Weights] = {"none": {}, "ls": solved.weights}
        began = time.perf_counter()
        _set(module, layer, solved.weights)
        names = trained_parameters(layer, module)
        pace = pace_of(job.bounds, len(walk.layers) - index, elapsed)
        values = train(index, module, names, given, dense, loss, pace, rate=rate, seed=index)
        elapsed += time.perf_counter() - began
        full = {f"{layer.name}.{name}": value for name, value in values.items()}
        weights["refit"] = {name: job.rounded(name, value) for name, value in full.items()}
        module = job.cut(layer)
        errors = {
            step: _error(index, module, layer, changed, given_held, dense_held, loss)
            for step, changed in weights.items()
        }
        kept = min(errors, key=lambda step: errors[step] if math.isfinite(errors[step]) else math.inf)
        _set(module, layer, weights[kept])
        given.advance(index, module)
        given_held.advance(index, module)
        facts = facts_of(errors, kept, damping=solved.damping, condition=solved.condition)
        yield Fitted(layer.site, {"ls": weights["ls"], "refit": weights[kept]}, facts)


def trained_parameters(layer: Layer, module: nn.Module) -> list[str]:
    """Names in ``module`` of what is trained: weights and biases of the feed-forward network."""
    paths = {projection.module.removeprefix(f"{layer.name}.") for projection in layer.site.projections}
    return [name for name, _ in module.named_parameters() if name.rpartition(".")[0] in paths]


def _set(module: nn.Module, layer: Layer, weights: Weights) -> None:
    """Give the cut copy of a layer new values."""
    for name, values in weights.items():
        module.get_parameter(name.removeprefix(f"{layer.name}.")).data.copy_(values)


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
        total += loss(after.float() - wanted[batch].float()) * len(hidden)
        blocks += len(hidden)
    return float(total) / blocks


COMPENSATION = Compensation(
    name="refit",
    description="each layer's network trained to give the dense model's hidden states, starting from ls",
    source="scarprune",
    steps=("ls", "refit"),
    fit=fit,
)
