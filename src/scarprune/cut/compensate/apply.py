"""A compensation from start to end: fitted on the dense model, judged as a whole once the model is cut."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from scarprune.cut.compensate.compensated import Compensated, carry
from scarprune.cut.compensate.compensation import Compensation, Fitted
from scarprune.cut.compensate.job import Bounds, Job
from scarprune.cut.dtypes import saved_dtypes
from scarprune.cut.width import stored_width
from scarprune.errors import ArgumentError, MemoryBudgetError, NumericsError, UnsupportedModelError
from scarprune.evaluate.perplexity import perplexity
from scarprune.models.context import context_length, vocabulary_size
from scarprune.models.find import find_sites
from scarprune.models.weights import bias
from scarprune.plan.plan import Plan
from scarprune.profile.passes import prepared
from scarprune.runtime.memory import is_out_of_memory
from scarprune.runtime.progress import remark, track
from scarprune.text.blocks import Blocks
from scarprune.text.fit import check_fits
from scarprune.text.hold_out import hold_out

Values = Mapping[str, torch.Tensor | None]


@dataclass(frozen=True)
class Making:
    """New weights of every site, not yet in the model, and the text to judge them by as a whole."""

    compensation: Compensation
    sites: Sequence[Fitted]
    held: Blocks
    began: float


def make(
    model: Any,
    plan: Plan,
    compensation: Compensation,
    blocks: Blocks | None,
    held_out: Blocks | None = None,
    *,
    pad: bool = False,
    bounds: Bounds = Bounds(),
    save_dtype: str | None = None,
) -> Making | None:
    """Fit ``compensation`` to the dense ``model``, which stays as it is; None where there is nothing to fit.

    Raises:
        ArgumentError: no blocks.
        TextError: fewer than two blocks, or blocks that do not fit the model.
        UnsupportedModelError: a model that is spread over devices, or cannot be walked layer by layer.
        NumericsError: what channels give is not finite.
        MemoryBudgetError: it does not fit.
    """
    if compensation.fit is None:
        return None
    if blocks is None:
        raise ArgumentError(
            f"Compensation {compensation.name!r} is fitted to text, and no blocks were given.",
            hint="Pass blocks=, such as those that were profiled.",
        )
    fit, held = hold_out(blocks) if held_out is None else (blocks, held_out)
    for text in (fit, held):
        check_fits(text, vocabulary_size(model), context_length(model.config))
    devices = {str(parameter.device) for parameter in model.parameters()}
    if len(devices) > 1:
        raise UnsupportedModelError(
            f"Compensation needs the model on one device; this one is on {', '.join(sorted(devices))}.",
            hint="Load it with device='cuda:0' or device='cpu'.",
        )
    began = time.perf_counter()
    job = Job(model, plan, stored_width(plan, pad), fit, held, bounds, saved_dtypes(model, save_dtype))
    return Making(compensation, list(_fitted(job, compensation.fit)), held, began)


def _fitted(job: Job, fit: Callable[[Job], Iterator[Fitted]]) -> Iterator[Fitted]:
    """What ``fit`` gives, with a bar.

    Raises:
        MemoryBudgetError: it does not fit.
    """
    try:
        with prepared(job.model), track("Compensating", len(job.plan.sites), unit="layers") as advance:
            for fitted in fit(job):
                yield fitted
                advance(1)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise MemoryBudgetError(
            f"Compensating {len(job.fit)} blocks of text does not fit in memory.",
            hint="Use fewer --blocks, or a narrower --dtype.",
        ) from error.with_traceback(None)


def put(model: Any, making: Making) -> Compensated:
    """Give the cut ``model`` the weights of the step with the least loss on the held-out text.

    A cheaper step is kept where a later one is no better, with a remark.
    """
    steps = ("none", *making.compensation.steps)
    names = {name for site in making.sites for weights in site.weights.values() for name in weights}
    cut: Values = {name: _get(model, name) for name in sorted(names)}
    added = tuple(name for name, values in cut.items() if values is None)
    losses: dict[str, float] = {}
    for step in steps:
        _put(model, _of_step(making, step, cut))
        try:
            losses[step] = perplexity(model, making.held).nats_per_token
        except NumericsError:
            losses[step] = math.inf
    kept = min(steps, key=losses.__getitem__)
    if kept != steps[-1]:
        _put(model, _of_step(making, kept, cut))
    done = Compensated(
        name=making.compensation.name,
        kept=kept,
        seconds=time.perf_counter() - making.began,
        losses={step: loss if math.isfinite(loss) else None for step, loss in losses.items()},
        sites={site.site.name: site.facts for site in making.sites},
        changed=tuple(n for n in cut if kept != "none" and any(n in s.weights[kept] for s in making.sites)),
        added=added if kept != "none" else (),
    )
    carry(model, done)
    _say(model, making, done)
    return done


def lacks_bias(model: Any) -> bool:
    """Whether the architecture has no bias at a down projection."""
    return any(bias(model, site.down) is None for site in find_sites(model))


def _of_step(making: Making, step: str, cut: Values) -> Values:
    changed = [site.weights[step] for site in making.sites] if step != "none" else []
    return {**cut, **{name: values for weights in changed for name, values in weights.items()}}


def _get(model: nn.Module, name: str) -> torch.Tensor | None:
    path, _, parameter = name.rpartition(".")
    values: torch.Tensor | None = getattr(model.get_submodule(path), parameter)
    return None if values is None else values.detach().to("cpu", copy=True)


def _put(model: Any, weights: Values) -> None:
    for name, values in weights.items():
        path, _, parameter = name.rpartition(".")
        module = model.get_submodule(path)
        there = getattr(module, parameter)
        if values is None:
            setattr(module, parameter, None)
        elif there is None:
            placed = values.to(module.weight.device)
            setattr(module, parameter, nn.Parameter(placed, requires_grad=module.weight.requires_grad))
        else:
            there.data.copy_(values)


def _say(model: Any, making: Making, done: Compensated) -> None:
    last = making.compensation.steps[-1]
    behind, count = sum(bool(site.facts["fell_back"]) for site in making.sites), len(making.sites)
    if behind:
        remark(f"At {behind} of {count} networks {last} was no better on held-out text: not used there.")
    if done.kept != last:
        nats = ", ".join(
            f"{step} {'not finite' if loss is None else f'{loss:.4f}'}" for step, loss in done.losses.items()
        )
        remark(f"Kept {done.kept!r} in place of {last!r}: nats per token on held-out text are {nats}.")
    if done.added:
        remark(
            f"Down projections of {type(model).__name__} have no bias in stock transformers: the biases that "
            f"were added are there in memory alone, and the model cannot be saved."
        )
