"""How much memory is used and free, on the CPU and on accelerators; and no more of it than allowed."""

import contextlib
import ctypes
import os
from collections.abc import Iterator

import psutil
import torch

_MMAP_THRESHOLD = -3  # of mallopt, in glibc's malloc.h
_RETURNED_BYTES, _KEPT_BYTES = 1 << 20, 1 << 25  # the latter is the most that glibc itself comes to


@contextlib.contextmanager
def frugal(device: torch.device) -> Iterator[None]:
    """On a CPU, freed tensors go back to the system at once while the block runs, where glibc allocates them.

    It would else keep them, and what is in use lies scattered between: two to four times as much is held.
    Taking every tensor anew costs up to a fifth of the time.
    """
    mallopt = (
        getattr(ctypes.CDLL(None), "mallopt", None) if device.type == "cpu" and os.name == "posix" else None
    )
    if mallopt is None:
        yield
        return
    mallopt(_MMAP_THRESHOLD, _RETURNED_BYTES)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)


@contextlib.contextmanager
def bounded(device: torch.device, nbytes: int | None) -> Iterator[None]:
    """A GPU's allocator refuses to hold more than ``nbytes`` while the block runs; a CPU's is ``frugal``.

    What a GPU's holds without using it is given back first, so that it is not counted.
    """
    if nbytes is None or device.type != "cuda":
        with contextlib.nullcontext() if nbytes is None else frugal(device):
            yield
        return
    device = _numbered(device)
    whole = torch.cuda.get_device_properties(device).total_memory
    before = torch.cuda.get_per_process_memory_fraction(device)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(min(before, nbytes / whole), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(before, device)


def available_bytes(device: torch.device) -> int:
    """Memory that can still be taken on ``device`` (a GPU's cached blocks count as free; see ``bounded``)."""
    if device.type == "cuda":
        device = _numbered(device)
        free, whole = torch.cuda.mem_get_info(device)
        reserved = torch.cuda.memory_reserved(device)
        allowed = int(torch.cuda.get_per_process_memory_fraction(device) * whole) - reserved
        return min(free, allowed) + reserved - torch.cuda.memory_allocated(device)
    return int(psutil.virtual_memory().available)


def total_bytes(device: torch.device) -> int:
    """All memory of ``device``."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(_numbered(device))[1])
    return int(psutil.virtual_memory().total)


def used_bytes(device: torch.device) -> int:
    """Memory that this process holds on ``device`` now."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return int(psutil.Process().memory_info().rss)


def allocated_bytes(device: torch.device) -> int | None:
    """Memory of tensors on a GPU now; None where nothing counts them."""
    return int(torch.cuda.memory_allocated(device)) if device.type == "cuda" else None


def reset_peak(device: torch.device) -> None:
    """Begin anew to look for the most that is in use on a GPU."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_bytes(device: torch.device) -> int | None:
    """The most memory of tensors on a GPU since ``reset_peak``; None where nothing counts it."""
    return int(torch.cuda.max_memory_allocated(device)) if device.type == "cuda" else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is an allocator's refusal, on any device."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def release_cached(device: torch.device) -> None:
    """Give a GPU's cached blocks back, before trying again with less."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def gib(count: float) -> str:
    """Bytes as people read them."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.{1 if unit == 'GiB' else 0}f} {unit}"
    return f"{count:.0f} bytes"


def _numbered(device: torch.device) -> torch.device:
    """``cuda`` alone is the current GPU, which not every function of torch takes for one."""
    return device if device.index is not None else torch.device("cuda", torch.cuda.current_device())
