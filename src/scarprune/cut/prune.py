"""Cutting a model in memory: the same modules with smaller matrices."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import nn

from scarprune.cut.compensate.apply import make, put
from scarprune.cut.compensate.compensated import compensated
from scarprune.cut.compensate.compensation import find_compensation
from scarprune.cut.compensate.job import Bounds
from scarprune.cut.dtypes import saved_dtypes
from scarprune.cut.narrow import narrow
from scarprune.cut.report import CutReport
from scarprune.cut.slice import selections
from scarprune.cut.width import padding, stored_width
from scarprune.errors import PlanError, UnsupportedModelError
from scarprune.models.family import text_config
from scarprune.models.find import family_of_model, find_sites
from scarprune.models.fingerprint import fingerprint_model
from scarprune.models.site import Site
from scarprune.models.supports import refuse_cut
from scarprune.plan.plan import Plan
from scarprune.text.blocks import Blocks


def prune_model(
    model: nn.Module,
    plan: Plan,
    compensate: str = "none",
    *,
    pad: bool = False,
    blocks: Blocks | None = None,
    held_out: Blocks | None = None,
    bounds: Bounds = Bounds(),
    save_dtype: str | None = None,
) -> CutReport:
    """Cut ``plan``'s channels out of ``model``, in place; afterwards it is an ordinary smaller model.

    Rows of gate and up go (weights and biases), and columns of down; the config's own name for the width is
    set. Nothing is changed where an error is raised.

    Args:
        model: in any dtype, on any devices, but not offloaded.
        plan: made for its weights.
        compensate: how the rest makes up for what goes: ``none``, ``bias``, ``ls`` or ``refit``.
        pad: where widths differ by site, give all the widest, the others filled up with zero channels.
        blocks: calibration text for the compensation.
        held_out: text to judge it by; None holds the last sixteenth of ``blocks`` out.
        bounds: how long ``refit`` may train.
        save_dtype: what ``save_model`` will be told; changed weights are rounded to what will be saved.

    Raises:
        ArgumentError: an unknown compensation, or one that needs blocks without them.
        TextError: blocks that are too few or do not fit the model.
        PlanError: the plan is for other weights, or its widths differ and ``pad`` is false.
        UnsupportedModelError: the architecture, or how its weights are stored, cannot be cut.
    """
    compensation = find_compensation(compensate)
    refuse_cut(model)
    refuse_offloaded(model)
    sites = find_sites(model)
    plan.check(sites, fingerprint_model(model))
    width = stored_width(plan, pad)
    key = family_of_model(model).width_key
    making = make(model, plan, compensation, blocks, held_out, pad=pad, bounds=bounds, save_dtype=save_dtype)
    for site in sites:
        narrow(model, site, plan.keep[site.name], width, key)
    if width != sites[0].width:
        for config in _text_configs(model):
            setattr(config, key, width)
    if making is not None:
        put(model, making)
    return report_of(model, plan, save_dtype)


def report_of(model: Any, plan: Plan, save_dtype: str | None = None) -> CutReport:
    """What cutting ``plan`` out of ``model`` did; the model is cut already.

    Args:
        model: after ``prune_model``.
        plan: what was cut.
        save_dtype: of the saved tensors; the source's own where None.

    Raises:
        PlanError: the model's sites are not those that the plan leaves.
    """
    width = stored_width(plan, pad=True)
    before = {planned.name: planned.width for planned in plan.sites}
    dtypes = saved_dtypes(model, save_dtype)
    parameters = dict(model.named_parameters())  # tied ones once
    numbers = sum(tensor.numel() for tensor in parameters.values())
    size = sum(tensor.numel() * dtypes[name].itemsize for name, tensor in parameters.items())
    gone = gone_bytes = 0
    sites = find_sites(model)
    for site in sites:
        if site.width != width or site.name not in before:
            raise PlanError(
                f"{site.name} has {site.width} channels, not {width}: it was not cut by this plan.",
                hint="Call prune_model(model, plan) first.",
            )
        for name, each in _of_a_channel(site, parameters):
            lost = (before[site.name] - width) * each
            gone, gone_bytes = gone + lost, gone_bytes + lost * dtypes[name].itemsize
    done = compensated(model)
    return CutReport(
        widths=dict.fromkeys(plan.keep, width),
        parameters_before=numbers + gone,
        parameters_after=numbers,
        bytes_before=size + gone_bytes,
        bytes_after=size,
        achieved_sparsity=plan.achieved_sparsity,
        padding=padding(plan, width),
        compensate="none" if done is None else done.name,
        compensation=None if done is None else done.as_json(),
    )


def expected_parameters(model: Any, plan: Plan) -> tuple[int, int]:
    """Parameters of the dense ``model``, and of a checkpoint cut by ``plan``, padding included."""
    parameters = dict(model.named_parameters())  # tied ones once
    numbers = sum(tensor.numel() for tensor in parameters.values())
    width = stored_width(plan, pad=True)
    gone = sum(
        (site.width - width) * each
        for site in find_sites(model)
        for _, each in _of_a_channel(site, parameters)
    )
    return numbers, numbers - gone


def _of_a_channel(site: Site, parameters: Mapping[str, nn.Parameter]) -> Iterator[tuple[str, int]]:
    """Name of every parameter of ``site`` that has channels, and how many of its numbers each has."""
    for module, parameter, _ in selections(site, np.arange(site.width)):
        tensor = parameters.get(f"{module}.{parameter}")
        if tensor is not None:
            yield f"{module}.{parameter}", tensor.numel() // site.width


def _text_configs(model: Any) -> Iterator[Any]:
    """Every object that describes the language model: modules may hold copies of the model's own."""
    own = text_config(model.config)
    found = [own, *(getattr(module, "config", None) for module in model.modules())]
    yield from {id(config): config for config in found if type(config) is type(own)}.values()


def refuse_offloaded(model: nn.Module) -> None:
    """Refuse a model whose weights are not all in memory.

    Raises:
        UnsupportedModelError: a tensor is offloaded; its name.
    """
    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise UnsupportedModelError(
                f"{name} is offloaded, and a model is cut in memory only where all of it is there.",
                hint="Cut its folder instead: scarprune cut MODEL PLAN OUT.",
            )
