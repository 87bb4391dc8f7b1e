"""Several processes at one task, as torchrun or accelerate launch start them."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from scarprune.runtime.progress import set_quiet


@dataclass(frozen=True)
class Ranks:
    """This process among its like.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1
    _control: Any = None

    @property
    def first(self) -> bool:
        """Whether this process is the one that speaks and writes."""
        return self.rank == 0

    def add_up(self, tensor: torch.Tensor) -> None:
        """Replace ``tensor`` by its sum over all processes."""
        if self.count > 1:
            dist.all_reduce(tensor)

    def agree(self, value: float) -> float:
        """The first process's ``value``; no GPU waits for it."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64)
        dist.broadcast(shared, src=0, group=self._control)
        return float(shared)

    def hand_out(self, tensor: torch.Tensor) -> None:
        """Replace ``tensor``, on the CPU, by the first process's."""
        if self.count > 1:
            dist.broadcast(tensor, src=0, group=self._control)

    def wait(self) -> None:
        """Until all processes are here."""
        self.agree(0.0)


def find_ranks() -> Ranks:
    """The processes of torch.distributed where it is set up, else this one alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return Ranks()
    control = None if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
    return Ranks(dist.get_rank(), dist.get_world_size(), control)


@contextlib.contextmanager
def joined(device: str) -> Iterator[str]:
    """Join the processes that a launcher started, if one did; yields the device of this one.

    All processes but the first are quiet inside.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield device
        return
    gpu = device != "cpu" and torch.cuda.is_available()
    if gpu and device in ("auto", "cuda"):
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo")
    try:
        if dist.get_rank() != 0:
            set_quiet(True)
        yield device
    finally:
        dist.destroy_process_group()
