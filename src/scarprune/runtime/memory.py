"""How much memory is used and free, on the CPU and on accelerators."""

import psutil
import torch


def available_bytes(device: torch.device) -> int:
    """Memory that can still be taken on ``device`` (a GPU's cached blocks count as free)."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(psutil.virtual_memory().available)


def total_bytes(device: torch.device) -> int:
    """All memory of ``device``."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
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
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
