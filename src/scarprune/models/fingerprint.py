"""Which weights a profile or a plan belongs to: a digest of sampled values that the dtype does not change."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scarprune.errors import UnsupportedModelError
from scarprune.models.checkpoint import ITEM_BYTES, Stored, open_checkpoint
from scarprune.models.names import OUTPUT, canonical

if TYPE_CHECKING:  # a cut from folder to folder fingerprints without loading torch
    import torch
    from torch import nn

_SAMPLES = 64
_DIMENSIONS = (2, 3)  # 4-dimensional ones are GPT-2's stored attention masks, or convolutions
_GOLDEN = 0x9E3779B97F4A7C15  # 2**64 over the golden ratio: its multiples spread evenly at every scale
_CARRIED = "_scarprune_fingerprint"

Samples = tuple[str, tuple[int, ...], np.ndarray]


@dataclass(frozen=True, slots=True)
class _Carried:
    of_source: str
    of_memory: str | None


def fingerprint_folder(path: str | Path) -> str:
    """The fingerprint of a folder of safetensors files; a few thousand bytes of each file are read.

    Raises:
        ArtifactError: no model folder, or damaged files.
    """
    checkpoint = open_checkpoint(Path(path))
    samples: list[Samples] = []
    for shard in checkpoint.shards:
        with shard.open("rb", buffering=0) as file:
            samples += [
                (canonical(tensor.name), tensor.shape, _read(file, tensor))
                for tensor in checkpoint.tensors.values()
                if tensor.path == shard and tensor.dtype in _DECODE and len(tensor.shape) in _DIMENSIONS
            ]
    return _digest(samples)


def fingerprint_model(model: "nn.Module") -> str:
    """The fingerprint of the weights in memory, or of what ``load_model`` read them from while unchanged.

    Raises:
        UnsupportedModelError: weights are offloaded, and the model did not come from ``load_model``.
    """
    carried: _Carried | None = getattr(model, _CARRIED, None)
    found = _of_memory(model)
    if carried is not None and found in (None, carried.of_memory):
        return carried.of_source
    if found is None:
        raise UnsupportedModelError(
            "This model's weights are offloaded and cannot be recognised.", hint="Load it with load_model."
        )
    return found


def carry_fingerprint(model: "nn.Module", of_source: str) -> None:
    """Remember what ``model`` was loaded from: in another dtype its values may be rounded otherwise."""
    setattr(model, _CARRIED, _Carried(of_source, _of_memory(model)))


def _matrices(model: "nn.Module") -> Iterable[tuple[str, "torch.Tensor"]]:
    return (
        (name, tensor)
        for name, tensor in model.state_dict().items()
        if hasattr(tensor, "is_floating_point") and tensor.is_floating_point() and tensor.dim() in _DIMENSIONS
    )


def _of_memory(model: "nn.Module") -> str | None:
    """None where weights are offloaded, so that there is nothing to sample."""
    import torch

    places: dict[tuple[int, torch.device], torch.Tensor] = {}
    abouts: dict[torch.device, list[tuple[str, tuple[int, ...]]]] = {}
    values: dict[torch.device, list[torch.Tensor]] = {}
    for name, tensor in _matrices(model):
        if tensor.is_meta:
            return None
        whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor  # parts hold slices of it
        device, key = whole.device, (whole.numel(), whole.device)
        if key not in places:
            places[key] = torch.from_numpy(positions(whole.numel())).to(device)
        abouts.setdefault(device, []).append((canonical(name), tuple(tensor.shape)))
        values.setdefault(device, []).append(whole.detach().reshape(-1)[places[key]].float())
    samples: list[Samples] = []
    for device, found in values.items():  # a GPU is waited for once, not for every tensor
        rows = torch.stack(found).cpu().numpy()
        samples += [(*about, row) for about, row in zip(abouts[device], rows, strict=True)]
    return _digest(samples)


def positions(items: int) -> np.ndarray:
    """int64 [64]: where a tensor of ``items`` numbers is sampled, in its stored order."""
    steps = (np.arange(1, _SAMPLES + 1, dtype=np.uint64) * np.uint64(_GOLDEN)).tolist()
    return np.array([(step * items) >> 64 for step in steps], dtype=np.int64)


def _digest(samples: Iterable[Samples]) -> str:
    rounded = {name: (shape, to_bfloat16(values).tobytes()) for name, shape, values in samples}
    output = rounded.get(OUTPUT)
    if output is not None and any(name != OUTPUT and found == output for name, found in rounded.items()):
        del rounded[OUTPUT]  # tied: whether it is stored as well says nothing about the weights
    digest = hashlib.sha256()
    for name, (shape, values) in sorted(rounded.items()):
        digest.update(f"{name}\0{shape}\0".encode() + values)
    return digest.hexdigest()


def to_bfloat16(values: np.ndarray) -> np.ndarray:
    """The 16 bits of each float32 value rounded to the nearest bfloat16, ties to even."""
    bits = np.ascontiguousarray(values, dtype="<f4").view("<u4").astype(np.uint64)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def _as_float32(dtype: str) -> Callable[[bytes], np.ndarray]:
    return lambda raw: np.frombuffer(raw, dtype).astype("<f4")


_DECODE: dict[str, Callable[[bytes], np.ndarray]] = {
    "F64": _as_float32("<f8"),
    "F32": _as_float32("<f4"),
    "F16": _as_float32("<f2"),
    "BF16": lambda raw: (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4"),
}


def _read(file: FileIO, tensor: Stored) -> np.ndarray:
    if tensor.items == 0:
        return np.zeros(0, dtype="<f4")
    size = ITEM_BYTES[tensor.dtype]
    raw = b""
    for at in positions(tensor.items).tolist():
        file.seek(tensor.start + size * at)
        raw += file.read(size)
    return _DECODE[tensor.dtype](raw)
