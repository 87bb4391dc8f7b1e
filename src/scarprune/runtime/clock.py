"""How long work takes on a device, and how fast the device is at best."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TypeVar

import torch

_MATRIX = {"cuda": 8192, "cpu": 1024}  # side of the product that a rate is measured with
_COPIED_BYTES = {"cuda": 1 << 30, "cpu": 1 << 27}
_TRIES = 5

Result = TypeVar("Result")


def timed(work: Callable[[], Result], device: torch.device) -> tuple[float, Result]:
    """Seconds that ``work`` takes on ``device``, whose queue is empty before and after; and what it gives."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
            began.record()
            result = work()
            ended.record()
            torch.cuda.synchronize()
        return began.elapsed_time(ended) / 1000, result
    _wait(device)
    start = time.perf_counter()
    result = work()
    _wait(device)
    return time.perf_counter() - start, result


def _wait(device: torch.device) -> None:
    if device.type == "mps":
        torch.mps.synchronize()


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What a device does at best.

    Attributes:
        operations_per_second: of one large matrix product.
        bytes_per_second: read and written by one large copy.
    """

    operations_per_second: float
    bytes_per_second: float

    def as_json(self) -> dict[str, float]:
        """Its two rates."""
        return asdict(self)


def measure_ceiling(device: torch.device, dtype: torch.dtype) -> Ceiling:
    """The best of several large products and copies in ``dtype`` on ``device``, now."""
    side = _MATRIX.get(device.type, 4096)
    a = torch.ones(side, side, dtype=dtype, device=device)
    product = min(timed(lambda: a @ a, device)[0] for _ in range(_TRIES))
    count = _COPIED_BYTES.get(device.type, 1 << 28) // dtype.itemsize
    source = torch.ones(count, dtype=dtype, device=device)
    target = torch.empty_like(source)
    copied = min(timed(lambda: target.copy_(source), device)[0] for _ in range(_TRIES))
    return Ceiling(2.0 * side**3 / product, 2.0 * count * dtype.itemsize / copied)
