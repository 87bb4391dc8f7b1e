"""What each stage of the work takes: its operations, what it moves, and the time of both on a machine."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from scarprune.cut.compensate.job import DEFAULT_STEPS, Bounds
from scarprune.cut.compensate.ridge import DAMPINGS
from scarprune.distill.settings import Settings
from scarprune.errors import ArgumentError
from scarprune.scaling import formulas
from scarprune.scaling.machine import Machine
from scarprune.scaling.placement import HOST_GPUS, Placement, Text, logits_bytes, place
from scarprune.scaling.sizes import Sizes

Part = tuple[str, "Work", float, int]  # name, work of a GPU, its memory in bytes, GPUs that take part
_NO_ROOM = "not even one block fits: use more GPUs (--gpus) or shorter blocks (--length)"
_NO_DISK = "how fast the disk is, is not known here (--disk)"


@dataclass(frozen=True, slots=True)
class Work:
    """What one GPU does, the one that has the most.

    Attributes:
        operations: of the model's products in the dtype of computing.
        float32: operations in float32.
        float64: operations in float64.
        moved_bytes: read and written in the device's memory besides what products move.
        linked_bytes: sent to other GPUs of the host.
        network_bytes: sent to other hosts.
        host_bytes: read from the CPU's memory while computing.
        disk_bytes: read and written.
    """

    operations: float = 0.0
    float32: float = 0.0
    float64: float = 0.0
    moved_bytes: float = 0.0
    linked_bytes: float = 0.0
    network_bytes: float = 0.0
    host_bytes: float = 0.0
    disk_bytes: float = 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage and its cost.

    Attributes:
        name: as the user calls it.
        work: of one GPU.
        memory_bytes: the most in use on one GPU.
        gpus: that take part; 0 where the CPU and the disk do it alone.
        seconds: expected; None where something is not known.
        reason: what that is.
    """

    name: str
    work: Work
    memory_bytes: float
    gpus: int
    seconds: float | None
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        """All fields; ``reason`` where there is no time."""
        document = asdict(self)
        return document if self.reason else {k: v for k, v in document.items() if k != "reason"}


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done with a model.

    Attributes:
        text: to profile, and to judge.
        gpus: how many there are.
        sparsity: share of the channels that a cut removes.
    """

    text: Text
    gpus: int = 1
    sparsity: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise ArgumentError(f"sparsity must lie from 0 to below 1, and is {self.sparsity}.")


def seconds(work: Work, machine: Machine) -> float | None:
    """Expected time: products, then what is moved, one after the other; the host's link at the same time.

    None where a link or a disk is used whose speed is not known.
    """
    links = (
        (work.linked_bytes, machine.link),
        (work.network_bytes, machine.network),
        (work.host_bytes, machine.host),
        (work.disk_bytes, machine.disk),
    )
    if any(count and rate is None for count, rate in links):
        return None
    linked, network, host, disk = (count / rate if rate else 0.0 for count, rate in links)
    computing = (
        work.operations / machine.reached
        + work.float32 / machine.float32_per_second
        + work.float64 / machine.float64_per_second
        + work.moved_bytes / machine.bytes_per_second
    )
    return max(computing, host) + linked + network + disk


def forecast(sizes: Sizes, job: Job, machine: Machine) -> list[Stage]:
    """Every stage, in the order in which they are used."""
    placement = place(sizes, job.text, machine, job.gpus)
    parts: tuple[Callable[[Sizes, Job, Machine, Placement], Part], ...] = (
        _pass_1, _pass_2, _perplexity, _cut, _ls, _refit, _heal_step,
    )  # fmt: skip
    stages = []
    for part in parts:
        name, work, memory, gpus = part(sizes, job, machine, placement)
        time, reason = seconds(work, machine), None
        if not placement.fits and part in (_pass_1, _pass_2):
            time, reason = None, _NO_ROOM
        elif time is None:
            reason = _missing(work, machine)
        stages.append(Stage(name, work, memory, gpus, time, reason))
    return stages


def _missing(work: Work, machine: Machine) -> str:
    if work.disk_bytes and machine.disk is None:
        return _NO_DISK
    return f"how fast {machine.name} is linked to others is not known here"


def backwards(sizes: Sizes, text: Text, placement: Placement) -> Work:
    """A pass forward and back to the first site, watched: what both passes of a profile share."""
    blocks, tokens = placement.blocks(text), placement.blocks(text) * text.length
    cost, shards = sizes.cost, placement.shards
    forward = cost.prefill_operations(text.length, every_logit=True)
    operations = forward.total + cost.backward_operations(text.length).total
    if placement.way != "resident":  # every layer once more on the way back
        operations += forward.ffn + forward.attention
    batches = math.ceil(blocks / placement.batch)
    return Work(
        operations=blocks * operations / shards,
        moved_bytes=tokens * formulas.loss_bytes(sizes, backward=True) / shards,
        linked_bytes=tokens
        * formulas.all_reduce_bytes(formulas.tensor_parallel_bytes(sizes, backward=True), shards),
        host_bytes=batches * formulas.streamed_bytes(sizes) if placement.way == "streamed" else 0.0,
    )


def _with_sums(work: Work, count: float, shards: int, copies: int) -> Work:
    """``work`` and the adding up of ``count`` bytes over ``copies`` of a model on so many GPUs each."""
    sent = formulas.all_reduce_bytes(count / shards, copies)
    if shards * copies > HOST_GPUS:
        return replace(work, network_bytes=sent)
    return replace(work, linked_bytes=work.linked_bytes + sent)


def _pass_1(sizes: Sizes, job: Job, machine: Machine, placement: Placement) -> Part:
    shared, tokens = backwards(sizes, job.text, placement), placement.blocks(job.text) * job.text.length
    watched = formulas.watched_bytes(sizes, kernels=machine.device == "cuda")
    work = Work(
        operations=shared.operations,
        moved_bytes=shared.moved_bytes + tokens * watched / placement.shards,
        linked_bytes=shared.linked_bytes,
        host_bytes=shared.host_bytes,
    )
    work = _with_sums(work, formulas.sums_sent_bytes(sizes), placement.shards, placement.copies)
    return "profile, pass 1", work, placement.memory_bytes, job.gpus


def _pass_2(sizes: Sizes, job: Job, machine: Machine, placement: Placement) -> Part:
    shared, tokens = backwards(sizes, job.text, placement), placement.blocks(job.text) * job.text.length
    each = tokens / placement.shards
    work = Work(
        operations=shared.operations,
        float32=each * formulas.cross_operations(sizes),
        moved_bytes=shared.moved_bytes + each * formulas.cross_moved_bytes(sizes),
        linked_bytes=shared.linked_bytes,
        host_bytes=shared.host_bytes,
    )
    work = _with_sums(work, formulas.cross_sent_bytes(sizes), placement.shards, placement.copies)
    return "profile, pass 2", work, placement.memory_bytes, job.gpus


def _perplexity(sizes: Sizes, job: Job, machine: Machine, placement: Placement) -> Part:
    blocks, tokens = job.text.blocks, job.text.tokens
    fixed = sizes.weight_bytes + logits_bytes(sizes, machine)
    passing = placement.batch * job.text.length * sizes.itemsize * (4 * sizes.hidden + 3 * max(sizes.widths))
    shards = placement.shards
    work = Work(
        operations=blocks * sizes.cost.prefill_operations(job.text.length, every_logit=True).total / shards,
        moved_bytes=tokens * formulas.loss_bytes(sizes, backward=False) / shards,
        linked_bytes=tokens
        * formulas.all_reduce_bytes(formulas.tensor_parallel_bytes(sizes, backward=False), shards),
    )
    return "perplexity", work, (fixed + passing) / shards, shards


def _cut(sizes: Sizes, job: Job, machine: Machine, placement: Placement) -> Part:
    kept = sizes.itemsize * sizes.kept_parameters(job.sparsity)
    largest = sizes.hidden * max(sizes.vocabulary, *sizes.widths)  # one tensor at a time, on the CPU
    return "cut", Work(disk_bytes=sizes.weight_bytes + kept), sizes.itemsize * largest, 0


def _ls(sizes: Sizes, job: Job, machine: Machine, placement: Placement) -> Part:
    work = _least_squares(sizes, job)
    return "ls", work, _memory_of_walk(sizes, job) + formulas.gram_bytes(sizes), 1


def _least_squares(sizes: Sizes, job: Job) -> Work:
    layers = sizes.cost.prefill_operations(job.text.length)
    return Work(
        operations=job.text.blocks * (layers.ffn + layers.attention)
        + job.text.tokens * formulas.gram_operations(sizes),
        float64=formulas.solve_operations(sizes, job.sparsity, len(DAMPINGS)),
        moved_bytes=job.text.tokens * sizes.layers * 2 * sizes.itemsize * sizes.hidden,
    )


def _memory_of_walk(sizes: Sizes, job: Job) -> float:
    """Weights and a hidden state of every token."""
    return sizes.weight_bytes + sizes.itemsize * job.text.tokens * sizes.hidden


def _refit(sizes: Sizes, job: Job, machine: Machine, placement: Placement) -> Part:
    solved, cut = _least_squares(sizes, job), sizes.without(job.sparsity)
    layers = cut.ffn + cut.attention
    trained = DEFAULT_STEPS * Bounds().tokens  # tokens of each layer; each costs three times its forward pass
    stepped = DEFAULT_STEPS * formulas.refit_step_bytes(layers / 2, sizes.itemsize)
    work = Work(
        operations=solved.operations + 3 * trained * layers + job.text.tokens * layers,
        float64=solved.float64,
        moved_bytes=solved.moved_bytes + stepped,
    )
    memory = _memory_of_walk(sizes, job) + sizes.itemsize * job.text.tokens * sizes.hidden
    layer = formulas.trained_bytes(layers / 2 / sizes.layers, sizes.itemsize)
    return "refit", work, memory + max(formulas.gram_bytes(sizes), layer), 1


def _heal_step(sizes: Sizes, job: Job, machine: Machine, placement: Placement) -> Part:
    share = math.ceil(Settings().batch / job.gpus)
    length = job.text.length
    whole = sizes.cost.prefill_operations(length, every_logit=True)
    cut = whole.total - job.sparsity * whole.ffn
    kept = sizes.kept_parameters(job.sparsity)
    work = Work(
        operations=share * (whole.total + 3 * cut),
        moved_bytes=formulas.heal_step_bytes(kept, sizes.itemsize)
        + share * length * 2 * formulas.loss_bytes(sizes, backward=True),
    )
    work = _with_sums(work, 4 * kept, 1, min(job.gpus, Settings().batch))
    memory = sizes.weight_bytes + formulas.trained_bytes(kept, sizes.itemsize) + logits_bytes(sizes, machine)
    memory += length * formulas.saved_bytes(sizes)
    return "heal, a step", work, memory, min(job.gpus, Settings().batch)
