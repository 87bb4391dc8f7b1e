"""What work is done on: rates and memory of one device, and of what links it to others."""

import dataclasses
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from scarprune.errors import ArgumentError
from scarprune.profile.estimate import EFFICIENCY
from scarprune.runtime.clock import measure_ceiling
from scarprune.runtime.device import device_name
from scarprune.runtime.memory import total_bytes


@dataclass(frozen=True, slots=True)
class Machine:
    """One device of ``gpus`` like it.

    Attributes:
        name: as people know it.
        operations_per_second: of one large matrix product in the dtype of computing.
        float32_per_second: the same in float32, without TF32.
        float64_per_second: the same in float64.
        bytes_per_second: of the device's own memory.
        memory_bytes: of it.
        efficiency: share of ``operations_per_second`` that a model's passes reach.
        link: bytes per second to another device of the same host, one way; None where there is none.
        network: bytes per second to another host, one way; None likewise.
        host: bytes per second from the CPU's memory, one way; None where it is the same memory.
        disk: bytes per second of the disk; None where it is not known.
        device: cuda, cpu or mps.
    """

    name: str
    operations_per_second: float
    float32_per_second: float
    float64_per_second: float
    bytes_per_second: float
    memory_bytes: float
    efficiency: float
    link: float | None = None
    network: float | None = None
    host: float | None = None
    disk: float | None = None
    device: str = "cuda"

    @property
    def reached(self) -> float:
        """Operations per second of a model's passes."""
        return self.efficiency * self.operations_per_second

    def as_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


# Products in bfloat16: as measured (benchmarks/records/profile_gpu_8b.json). Memory, NVLink 4 and PCIe 5 x16
# one way, float32 and float64 (tensor cores): data sheet of the SXM5 version. Network, a GPU: of a DGX H100.
H100 = Machine(
    name="H100 80 GB",
    operations_per_second=753e12,
    float32_per_second=67e12,
    float64_per_second=67e12,
    bytes_per_second=3.35e12,
    memory_bytes=80e9,
    efficiency=EFFICIENCY["cuda"],
    link=450e9,
    network=50e9,
    host=64e9,
)


def measured(device: torch.device, dtype: torch.dtype) -> Machine:
    """The machine at hand; links are not measured: a GPU's are taken to be those of an H100."""
    best = measure_ceiling(device, dtype)
    wide = best if dtype == torch.float32 else measure_ceiling(device, torch.float32)
    exact = wide if device.type == "mps" else measure_ceiling(device, torch.float64)  # MPS has no float64
    return Machine(
        name=device_name(device),
        operations_per_second=best.operations_per_second,
        float32_per_second=wide.operations_per_second,
        float64_per_second=exact.operations_per_second,
        bytes_per_second=best.bytes_per_second,
        memory_bytes=total_bytes(device),
        efficiency=EFFICIENCY.get(device.type, EFFICIENCY["cuda"]),
        link=H100.link if device.type == "cuda" else None,
        network=H100.network if device.type == "cuda" else None,
        host=H100.host if device.type == "cuda" else None,
        device=device.type,
    )


def stated(
    machine: Machine, *, tflops: float | None, bandwidth: float | None, disk: float | None = None
) -> Machine:
    """``machine`` with the rates that a user states: TFLOP/s of products, GB/s of memory and of the disk.

    Products in float32 and float64 then keep their ratio to those in the dtype of computing.

    Raises:
        ArgumentError: a rate that is not positive.
    """
    for name, value in (("tflops", tflops), ("bandwidth", bandwidth), ("disk", disk)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ArgumentError(f"--{name} must be positive, and is {value}.")
    changes: dict[str, Any] = {}
    if tflops is not None:
        factor = tflops * 1e12 / machine.operations_per_second
        changes = {
            "name": f"{machine.name}, rates as stated",
            "operations_per_second": tflops * 1e12,
            "float32_per_second": factor * machine.float32_per_second,
            "float64_per_second": factor * machine.float64_per_second,
        }
    if bandwidth is not None:
        changes |= {"name": f"{machine.name}, rates as stated", "bytes_per_second": bandwidth * 1e9}
    if disk is not None:
        changes["disk"] = disk * 1e9
    return dataclasses.replace(machine, **changes)
