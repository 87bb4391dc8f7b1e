"""Which device and dtype to compute with."""

import platform

import numpy as np
import torch

from scarprune.errors import ArgumentError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_device(name: str = "auto") -> torch.device:
    """``auto`` is the GPU that is there (CUDA, then MPS), else the CPU.

    Raises:
        ArgumentError: not a device name, or a device this machine does not have.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ArgumentError(
            f"{name!r} is not a device.", hint="Use auto, cpu, cuda, cuda:1 or mps."
        ) from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.type, False):
        raise ArgumentError(f"This machine has no {name!r} device.", hint="Use --device auto or cpu.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ArgumentError(f"This machine has {torch.cuda.device_count()} CUDA devices and no {name!r}.")
    return device


def resolve_dtype(
    name: str, checkpoint: torch.dtype | None, device: torch.device, fits: bool = True
) -> torch.dtype:
    """The dtype of computing: ``auto`` is the checkpoint's on a GPU, float32 on a CPU where it ``fits``.

    Raises:
        ArgumentError: not a dtype that models are computed in.
    """
    if name != "auto":
        try:
            return DTYPES[name]
        except KeyError:
            known = ", ".join(DTYPES)
            raise ArgumentError(
                f"{name!r} is not a dtype scarprune computes in.", hint=f"Use auto, {known}."
            ) from None
    if device.type == "cpu" and fits:
        return torch.float32
    return torch.float32 if checkpoint is None or checkpoint not in DTYPES.values() else checkpoint


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A copy on ``device`` of what lies on the CPU; a GPU is not waited for."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """``tensor`` in CPU memory; what lies there already is shared.

    NumPy asks the system for large pages, which it hands out about twice as fast as torch's small ones.
    """
    if tensor.device.type == "cpu":
        return tensor.numpy()
    array = np.empty(tensor.shape, dtype=torch.empty(0, dtype=tensor.dtype).numpy().dtype)
    torch.from_numpy(array).copy_(tensor)
    return array


def has_others(device: torch.device) -> bool:
    """Whether ``device`` is any of several GPUs, and none of them by number."""
    return device == torch.device("cuda") and torch.cuda.device_count() > 1


def device_name(device: torch.device) -> str:
    """What a record of times says of a device: the GPU's name, or the processor and its threads in use."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
