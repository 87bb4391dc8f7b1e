"""Short distillation: a cut model learns to say what its dense teacher says."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from scarprune.distill.lora import add_adapters, merge
from scarprune.distill.settings import Settings
from scarprune.distill.state import Keeper
from scarprune.distill.train import Healed, Training
from scarprune.distill.weights import Weights
from scarprune.errors import ArgumentError, UnsupportedModelError
from scarprune.models.context import context_length, vocabulary_size
from scarprune.models.fingerprint import fingerprint_model
from scarprune.models.head import find_head
from scarprune.models.in_dtype import in_dtype
from scarprune.runtime.ranks import find_ranks
from scarprune.text.blocks import Blocks
from scarprune.text.fit import check_fits
from scarprune.text.hold_out import hold_out

_MOST_HELD_OUT = 32
_NOT_IDENTITY = ("micro", "compile", "graph")  # how it is computed, not what


def heal(
    student: Any,
    teacher: Any,
    blocks: Blocks,
    *,
    held_out: Blocks | None = None,
    resume: Path | None = None,
    settings: Settings = Settings(),
    **changes: Any,
) -> Healed:
    """Train ``student`` in place towards the next-token distributions of ``teacher``.

    The objective is the forward KL divergence at temperature 1 on every token of blocks cut from the text.
    Weights train in float32 and compute in bfloat16 on a GPU. What stays at the end are the weights that
    were best on the held-out blocks, which may be those the student came with: it never gets worse there.
    Under torchrun or accelerate launch the processes share each batch.

    Args:
        student: any causal language model of the teacher's vocabulary, whole on one device, in any dtype.
            Where an error is raised it keeps the best weights so far.
        teacher: left as it is; on the student's device.
        blocks: what to learn from, from ``read_blocks``.
        held_out: what decides which weights stay; None takes the last sixteenth of ``blocks`` (at most 32),
            and learns from the rest.
        resume: file where the state of an interrupted run lies; training goes on from it where it is there.
            The caller removes it.
        settings: how to train; its fields are budgets, ``batch``, ``lr``, ``lora`` and others.
        changes: single fields of ``settings``: ``heal(student, teacher, blocks, seconds=60)``.

    Raises:
        ArgumentError: settings that cannot be; LoRA without peft; teacher and student on different devices.
        UnsupportedModelError: another vocabulary; offloaded or quantized weights.
        TextError: blocks that do not fit the models, or too few.
        MemoryBudgetError: a batch of one block does not fit.
        NumericsError: the divergence is not finite.
    """
    started = time.monotonic()
    chosen, ranks = replace(settings, **changes), find_ranks()
    device = _device(student, teacher)
    _refuse_other_vocabulary(student, teacher)
    text, judged = (blocks, held_out) if held_out is not None else hold_out(blocks, _MOST_HELD_OUT)
    for model in (student, teacher):
        for part in (text, judged):
            check_fits(part, vocabulary_size(model), context_length(model.config))
    identity = {
        "student": fingerprint_model(student),
        "teacher": fingerprint_model(teacher),
        "text": text.fingerprint,
        "held-out text": judged.fingerprint,
        "processes": ranks.count,
        **{key: value for key, value in chosen.as_json().items() if key not in _NOT_IDENTITY},
    }
    keeper = Keeper(resume, identity)
    dtype = chosen.compute_dtype(device)
    heads = find_head(student), find_head(teacher)
    frozen = in_dtype(teacher, dtype)
    with _evaluating(student, frozen), _taken(student, chosen, dtype) as weights:
        training = Training(
            student=heads[0],
            teacher=replace(heads[1], model=frozen),
            weights=weights,
            text=text,
            held_out=judged,
            settings=chosen,
            ranks=ranks,
            keeper=keeper,
            started=started,
        )
        return training.run()


def _device(student: Any, teacher: Any) -> torch.device:
    """The one device of both models.

    Raises:
        ArgumentError: there are several.
        UnsupportedModelError: weights are offloaded, or no plain numbers.
    """
    devices: set[torch.device] = set()
    for model in (student, teacher):
        for name, parameter in model.named_parameters():
            devices.add(parameter.device)
            if parameter.is_meta or not parameter.is_floating_point() or parameter.element_size() == 1:
                kind = "offloaded" if parameter.is_meta else f"{parameter.dtype}"
                raise UnsupportedModelError(
                    f"{name} is {kind}: only weights that are plain numbers in memory are healed."
                )
    if len(devices) > 1:
        raise ArgumentError(
            f"Teacher and student must be whole on one device, not on {', '.join(sorted(map(str, devices)))}."
        )
    return devices.pop()


def _refuse_other_vocabulary(student: Any, teacher: Any) -> None:
    sizes = [vocabulary_size(model) for model in (student, teacher)]
    if sizes[0] != sizes[1]:
        raise UnsupportedModelError(
            f"The teacher's vocabulary has {sizes[1]:,} ids and the student's {sizes[0]:,}.",
            hint="Only a teacher of the same vocabulary can be learned from.",
        )


@contextlib.contextmanager
def _taken(student: Any, settings: Settings, dtype: torch.dtype) -> Iterator[Weights]:
    """What is trained of ``student``; afterwards it is an ordinary model again, with the trained weights."""
    flags = {parameter: parameter.requires_grad for parameter in student.parameters()}
    student.requires_grad_(settings.lora is None)
    adapted = None if settings.lora is None else add_adapters(student, settings.lora, settings.seed)
    weights = Weights(student, dtype)
    try:
        yield weights
    finally:
        weights.give_back()
        if adapted is not None:
            merge(adapted)
        for parameter, flag in flags.items():
            parameter.requires_grad_(flag)


@contextlib.contextmanager
def _evaluating(*models: Any) -> Iterator[None]:
    """Without dropout while the block runs."""
    training = [module for model in models for module in model.modules() if module.training]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
