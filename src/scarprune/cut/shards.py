"""The files of weights of an output: the source's own or new ones, and their index."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from scarprune.cut.count import count
from scarprune.cut.transfer import Checks, Transfer, write_file
from scarprune.errors import ArgumentError
from scarprune.models.checkpoint import INDEX, WEIGHTS, Checkpoint, read_object
from scarprune.runtime.progress import track

Files = Mapping[str, Sequence[Transfer]]


def files_of(checkpoint: Checkpoint, transfers: Sequence[Transfer], max_shard: int | None = None) -> Files:
    """File name -> what goes into it: the source's own files, or new ones of at most ``max_shard`` bytes.

    A tensor that is larger than ``max_shard`` gets a file of its own.

    Raises:
        ArgumentError: ``max_shard`` is not positive.
    """
    if max_shard is None:
        files: dict[str, list[Transfer]] = {path.name: [] for path in checkpoint.shards}
        for transfer in transfers:
            files[transfer.tensor.path.name].append(transfer)
        return files
    if max_shard < 1:
        raise ArgumentError(f"A file of weights cannot have at most {max_shard} bytes.")
    groups: list[list[Transfer]] = [[]]
    room = max_shard
    for transfer in transfers:
        if groups[-1] and transfer.target.nbytes > room:
            groups.append([])
            room = max_shard
        groups[-1].append(transfer)
        room -= transfer.target.nbytes
    if len(groups) == 1:
        return {WEIGHTS: groups[0]}
    return {f"model-{i:05d}-of-{len(groups):05d}.safetensors": group for i, group in enumerate(groups, 1)}


def write_files(folder: Path, checkpoint: Checkpoint, files: Files) -> None:
    """Write and verify every file, then the index where there is more than ``model.safetensors``."""
    total = sum(transfer.target.nbytes for group in files.values() for transfer in group)
    with Checks() as checks, track("Cutting", total / 1e6, unit="MB") as advance:
        for name, group in files.items():
            metadata = checkpoint.metadata[group[0].tensor.path] if group else {"format": "pt"}
            write_file(folder / name, group, metadata, checks)
            advance(sum(transfer.target.nbytes for transfer in group) / 1e6)
        checks.finish()
    if list(files) != [WEIGHTS]:
        _write_index(folder, checkpoint, files, total)


def _write_index(folder: Path, checkpoint: Checkpoint, files: Files, total: int) -> None:
    old = read_object(checkpoint.folder / INDEX) if checkpoint.indexed else {}
    metadata = old.get("metadata")
    metadata = {**(metadata if isinstance(metadata, dict) else {}), "total_size": total}
    if "total_parameters" in metadata:
        metadata["total_parameters"] = count([t for group in files.values() for t in group]).parameters_after
    place = {transfer.tensor.name: name for name, group in files.items() for transfer in group}
    index = {**old, "metadata": metadata, "weight_map": dict(sorted(place.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
