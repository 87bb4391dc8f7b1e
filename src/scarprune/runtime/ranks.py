"""Several processes at one task, as torchrun or accelerate launch start them."""

import contextlib
import datetime
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore

from scarprune.errors import ArgumentError, ProcessesError
from scarprune.runtime.device import to_numpy
from scarprune.runtime.ending import ending_together, meeting_place
from scarprune.runtime.progress import set_quiet

# Not how a death is noticed (a closed connection, or the launcher): how long one may compute alone.
PATIENCE = datetime.timedelta(days=2)


@dataclass(frozen=True)
class Ranks:
    """This process among its like.

    ``parts`` neighbouring processes hold one copy of the model in parts (tensor parallel); the copies divide
    the work between them (data parallel).

    Attributes:
        rank: its number, from 0.
        count: how many there are.
        parts: how many hold one copy.
        tensor_mesh: the device mesh of the processes that hold this copy; None where one holds it whole.
    """

    rank: int = 0
    count: int = 1
    parts: int = 1
    tensor_mesh: Any = None
    _control: Any = None  # gloo, of all processes
    _copy_control: Any = None  # gloo, of this copy's
    _data: Any = None  # those that hold the same part of other copies; None is all

    @property
    def first(self) -> bool:
        """Whether this process is the one that speaks and writes."""
        return self.rank == 0

    @property
    def copies(self) -> int:
        """How many copies of the model there are."""
        return self.count // self.parts

    @property
    def copy(self) -> int:
        """Which of them this process belongs to."""
        return self.rank // self.parts

    @property
    def part(self) -> int:
        """Which part of its copy this process holds."""
        return self.rank % self.parts

    def share(self, weights: np.ndarray) -> tuple[int, int]:
        """The run [start, stop) of items that is this copy's: all copies' runs weigh about the same.

        Raises:
            ArgumentError: there are fewer items than copies.
        """
        count = len(weights)
        if count < self.copies:
            raise ArgumentError(
                f"There are fewer blocks ({count}) than processes to divide them between ({self.copies}).",
                hint="Use fewer processes or more --blocks.",
            )
        ends = np.concatenate([[0], np.cumsum(weights)])
        cuts = [0]
        for copy in range(1, self.copies):
            nearest = int(np.abs(ends - ends[-1] * copy / self.copies).argmin())
            cuts.append(min(max(nearest, cuts[-1] + 1), count - self.copies + copy))
        cuts.append(count)
        return cuts[self.copy], cuts[self.copy + 1]

    def add_up(self, tensor: torch.Tensor) -> None:
        """Replace ``tensor`` by its sum over the copies."""
        if self.copies > 1:
            dist.all_reduce(tensor, group=self._data)

    def total(self, arrays: Mapping[str, np.ndarray], device: torch.device) -> dict[str, np.ndarray]:
        """The sums of float64 ``arrays`` over the copies, by way of ``device``; others may take long."""
        if self.copies == 1:
            return dict(arrays)
        keys = sorted(arrays)
        sums = self.total_of([torch.from_numpy(arrays[key]) for key in keys], device)
        return {key: to_numpy(tensor) for key, tensor in zip(keys, sums, strict=True)}

    def total_of(self, tensors: Sequence[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
        """The sums of float64 ``tensors`` over the copies, on ``device``: one all-reduce of all together."""
        sizes = [tensor.numel() for tensor in tensors]
        flat = torch.empty(sum(sizes), dtype=torch.float64, device=device)
        parts = torch.split(flat, sizes)
        for part, tensor in zip(parts, tensors, strict=True):
            part.copy_(tensor.reshape(-1))
        self.wait()
        self.add_up(flat)
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def line_up(self, tensor: torch.Tensor, dim: int, width: int) -> torch.Tensor:
        """The parts' slices of a dimension of ``width``, joined in the order of the parts."""
        step = self._step(width)
        missing = step - tensor.shape[dim]
        if missing:  # the last parts may hold less
            shape = list(tensor.shape)
            shape[dim] = missing
            tensor = torch.cat([tensor, tensor.new_zeros(shape)], dim)
        tensor = tensor.contiguous()
        slices = [torch.empty_like(tensor) for _ in range(self.parts)]
        dist.all_gather(slices, tensor, group=self.tensor_mesh.get_group())
        return torch.cat(slices, dim).narrow(dim, 0, width)

    def slice_of(self, width: int) -> tuple[int, int]:
        """Where this part's slice of a dimension of ``width`` starts and stops."""
        step = self._step(width)
        return min(self.part * step, width), min((self.part + 1) * step, width)

    def _step(self, width: int) -> int:
        return -(-width // self.parts)  # as torch.chunk and DTensor divide

    def agree(self, value: float) -> float:
        """The first process's ``value``; no GPU waits for it."""
        return value if self.count == 1 else _broadcast(value, 0, self._control)

    def agree_on_copy(self, value: float) -> float:
        """The ``value`` of the process that holds the first part of this copy; no GPU waits for it."""
        return value if self.parts == 1 else _broadcast(value, self.rank - self.part, self._copy_control)

    def least_of_copy(self, value: float) -> float:
        """The smallest ``value`` in any part of this copy; no GPU waits for it."""
        if self.parts == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        dist.all_reduce(shared, op=dist.ReduceOp.MIN, group=self._copy_control)
        return float(shared)

    def hand_out(self, tensor: torch.Tensor) -> None:
        """Replace ``tensor``, on the CPU, by the first process's."""
        if self.count > 1:
            dist.broadcast(tensor, src=0, group=self._control)

    def wait(self) -> None:
        """Until all processes are here; no GPU waits for them."""
        if self.count > 1:
            dist.barrier(group=self._control)


ALONE = Ranks()


def _broadcast(value: float, source: int, group: Any) -> float:
    shared = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(shared, src=source, group=group)
    return float(shared)


def find_ranks(parts: int = 1) -> Ranks:
    """The processes of torch.distributed where it is set up, else this one alone.

    Args:
        parts: how many processes hold one copy of the model.

    Raises:
        ArgumentError: the processes cannot be divided so.
    """
    count = dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1
    if parts < 1:
        raise ArgumentError(
            f"A copy of the model has 1 part or more, not {parts}.", hint="Use --tp 1 or more."
        )
    if count % parts:
        raise ArgumentError(
            f"Copies in {parts} parts need a multiple of {parts} processes; here there are {count}.",
            hint=f"Start them with: torchrun --nproc-per-node {max(parts, 2)} -m scarprune ...",
        )
    if count == 1:
        return ALONE
    gloo = dist.get_backend() == "gloo"
    control = None if gloo else dist.new_group(backend="gloo", timeout=PATIENCE)
    if parts == 1:
        return Ranks(dist.get_rank(), count, _control=control)
    mesh = init_device_mesh(
        "cpu" if gloo else "cuda", (count // parts, parts), mesh_dim_names=("data", "tensor")
    )
    copy_control, _ = dist.new_subgroups(parts, timeout=PATIENCE, backend="gloo")  # type: ignore[no-untyped-call]
    data = mesh["data"].get_group()
    return Ranks(dist.get_rank(), count, parts, mesh["tensor"], control, copy_control, data)


@contextlib.contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the processes that a launcher started, if one did; yields the device of this one.

    All processes but the first are quiet inside.

    Raises:
        ProcessesError: another process has ended before the work was done.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield device
        return
    gpu = device != "cpu" and torch.cuda.is_available()
    if gpu and device in ("auto", "cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    store, rank, count = meeting_place()
    store = PrefixStore("work", store)
    backend = "nccl" if gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
    if rank != 0:
        set_quiet(True)
    # Where an error ends this process it is not taken from its group: that would wait for the others.
    with ending_together():
        try:
            yield device
        except RuntimeError as error:
            if not _is_lost_connection(error):
                raise
            raise ProcessesError() from error
    dist.destroy_process_group()


def _is_lost_connection(error: RuntimeError) -> bool:
    """Whether ``error`` says that another process is gone; gloo has no class of its own for it."""
    of_a_connection = isinstance(error, dist.DistNetworkError | dist.DistBackendError) or "gloo" in str(error)
    return of_a_connection and "ncclInvalid" not in str(error)  # what is asked of NCCL is another matter
