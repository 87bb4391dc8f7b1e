"""A checkpoint on disk: its config and where each tensor of its safetensors files lies.

Nothing here imports torch or transformers, and no tensor is read. Format of a file: 8 bytes little-endian
length, a JSON header, then the data without holes (https://github.com/huggingface/safetensors#format).
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scarprune.errors import ArtifactError, UnsupportedModelError

ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}
CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MERGE = "Merge the adapter into its base model first (peft: merge_and_unload, then save_pretrained)."
_LARGEST_HEADER_BYTES = 100_000_000  # what the safetensors library itself accepts
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True)
class Stored:
    """One tensor in a file: ``start`` is counted from the file's beginning, in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    path: Path
    start: int

    @property
    def items(self) -> int:
        """How many numbers the tensor holds."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes the tensor takes."""
        return self.items * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Checkpoint:
    """A folder of safetensors files, complete as far as headers and sizes can tell.

    Attributes:
        folder: where it lies.
        config: the JSON object of ``config.json``.
        shards: the files, in the order of their names.
        tensors: name -> where it lies, shard by shard in the order of the bytes.
        metadata: of each shard.
        indexed: whether an index file says which shard holds what.
    """

    folder: Path
    config: dict[str, Any]
    shards: tuple[Path, ...]
    tensors: dict[str, Stored]
    metadata: dict[Path, dict[str, str]]
    indexed: bool

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @property
    def dtype(self) -> str | None:
        """The floating dtype that most bytes are stored in, in safetensors' words; None without one."""
        totals: dict[str, int] = {}
        for tensor in self.tensors.values():
            if "F" in tensor.dtype:
                totals[tensor.dtype] = totals.get(tensor.dtype, 0) + tensor.nbytes
        return max(totals, key=totals.__getitem__) if totals else None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in ``path``.

    Raises:
        ArtifactError: missing, or no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"There is no file {path}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not a readable JSON file: {error}.") from error
    if not isinstance(found, dict):
        raise ArtifactError(f"{path} holds no JSON object.")
    return found


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a model folder, keys in their order.

    Raises:
        ArtifactError: no folder, no model in it, or no JSON object.
        UnsupportedModelError: an adapter without its base model.
    """
    if not folder.exists():
        raise ArtifactError(f"There is no folder {folder}.")
    if not folder.is_dir():
        raise ArtifactError(f"{folder} is a file; a model is a folder or a .gguf file.")
    if not (folder / CONFIG).is_file() and (folder / ADAPTER).is_file():
        raise UnsupportedModelError(f"{folder} holds an adapter, not a whole model.", hint=MERGE)
    if not (folder / CONFIG).is_file():
        gguf = next((path for path in sorted(folder.glob("*.gguf"))), None)
        raise ArtifactError(
            f"{folder} is no model folder: it has no {CONFIG}.",
            hint=None if gguf is None else f"For the GGUF file in it, name the file: {gguf}.",
        )
    return read_object(folder / CONFIG)


def read_header(path: Path) -> tuple[list[Stored], dict[str, str]]:
    """The tensors of a file in the order of their bytes, and the file's metadata.

    Raises:
        ArtifactError: missing, truncated, or no safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(size - 8, _LARGEST_HEADER_BYTES):
                raise ArtifactError(f"{path} is empty, truncated or not a safetensors file.")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", None) or {}
        spans = sorted(
            (int(entry["data_offsets"][0]), int(entry["data_offsets"][1]), name)
            for name, entry in header.items()
        )
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in header.items()}
        dtypes = {name: str(entry["dtype"]) for name, entry in header.items()}
    except FileNotFoundError as error:
        raise ArtifactError(f"There is no file {path}.") from error
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged or not a safetensors file: {error}.") from error
    tensors, end = [], 8 + length
    for start, stop, name in spans:
        if dtypes[name] not in ITEM_BYTES:
            raise ArtifactError(f"{path} stores {name} as {dtypes[name]}, which scarprune does not know.")
        tensor = Stored(name, dtypes[name], shapes[name], path, end)
        end += tensor.nbytes
        if (8 + length + start, 8 + length + stop) != (tensor.start, end) or min(shapes[name], default=0) < 0:
            raise ArtifactError(f"{path} is damaged: the bytes of {name} are not where its shape says.")
        tensors.append(tensor)
    if end != size:
        raise ArtifactError(f"{path} is truncated or damaged: it has {size} bytes and should have {end}.")
    return tensors, metadata


def open_checkpoint(folder: Path) -> Checkpoint:
    """Read the config, the index and the headers of a model folder.

    Raises:
        ArtifactError: no model folder, missing, empty or truncated files, or weights in another format.
    """
    config = read_config(folder)
    indexed = (folder / INDEX).is_file() and not (folder / WEIGHTS).is_file()
    shards, promised = _read_index(folder) if indexed else (_single_file(folder), {})
    tensors: dict[str, Stored] = {}
    metadata = {}
    for path in shards:
        found, metadata[path] = read_header(path)
        for tensor in found:
            if tensor.name in tensors:
                other = tensors[tensor.name].path.name
                raise ArtifactError(f"{folder} is damaged: {tensor.name} is in {path.name} and in {other}.")
            tensors[tensor.name] = tensor
    for name, shard in promised.items():
        if name not in tensors or tensors[name].path.name != shard:
            raise ArtifactError(f"{folder} is damaged: its index says {name} is in {shard}, where it is not.")
    return Checkpoint(folder, config, shards, tensors, metadata, indexed)


def _read_index(folder: Path) -> tuple[tuple[Path, ...], dict[str, str]]:
    path = folder / INDEX
    weight_map = read_object(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ArtifactError(f"{path} is damaged: it has no weight_map.")
    names = {str(shard) for shard in weight_map.values()}
    for name in sorted(names):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ArtifactError(f"{path} is damaged: {name!r} is no safetensors file of this folder.")
    missing = sorted(name for name in names if not (folder / name).is_file())
    if missing:
        raise ArtifactError(
            f"{folder} is incomplete: {len(missing)} of {len(names)} files of weights are missing, "
            f"the first is {missing[0]}.",
            hint="Download it again.",
        )
    return tuple(folder / name for name in sorted(names)), {str(k): str(v) for k, v in weight_map.items()}


def _single_file(folder: Path) -> tuple[Path, ...]:
    path = folder / WEIGHTS
    if path.is_file():
        return (path,)
    pickled = sorted(found.name for pattern in _PICKLED for found in folder.glob(pattern))
    if pickled:
        raise ArtifactError(
            f"{folder} has its weights only as {pickled[0]}, a pickle, which scarprune never opens.",
            hint="Convert it where you trust it: AutoModelForCausalLM.from_pretrained(folder)"
            ".save_pretrained(new_folder) writes safetensors.",
        )
    raise ArtifactError(
        f"{folder} is no model folder: it has neither {WEIGHTS} nor {INDEX}.",
        hint="scarprune reads weights from safetensors and GGUF files alone.",
    )
