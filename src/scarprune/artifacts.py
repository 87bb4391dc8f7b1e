"""Files that outlive a process: versioned, written whole or not at all, never unpickled."""

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from scarprune.errors import ArtifactError, NumericsError

VERSION = 1
_HEADER = "scarprune"


def partial_path(path: Path) -> Path:
    """Where ``path`` grows until it is whole, and where resume state lives: ``OUT.partial``."""
    return path.with_name(path.name + ".partial")


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Raise ArtifactError where ``path`` is there and may not be replaced, or cannot be written at all.

    ``overwrite`` replaces a file or folder that is there, but never one that the user stands in or lives in.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ArtifactError(f"{path} is no file and no folder, and is not replaced.", hint="Name a file.")
    if path.exists() and not overwrite:
        raise ArtifactError(f"{path} is already there.", hint="Pass --overwrite to replace it.")
    around = (Path.cwd(), Path(os.path.expanduser("~")))  # "~" itself where nobody has a home
    if path.is_dir() and any(place.is_relative_to(path.resolve()) for place in around):
        raise ArtifactError(
            f"{path} is a folder around your own place and is not replaced.", hint="Choose another name."
        )
    folder = next(place for place in path.absolute().parents if place.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        wrong = "may not be written to" if folder.is_dir() else "is no folder"
        raise ArtifactError(f"{path} could not be written: {folder} {wrong}.", hint="Choose another place.")


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        # safetensors wraps the operating system's error in its own and keeps the number in the text alone.
        full = f"os error {errno.ENOSPC}" in str(error) or getattr(error, "errno", None) == errno.ENOSPC
        if full:
            raise ArtifactError(
                f"The disk is full: {path} could not be written.", hint="Free some space and run again."
            ) from error
        reason = getattr(error, "strerror", None) or error
        raise ArtifactError(f"{path} could not be written: {reason}.") from error


@contextlib.contextmanager
def atomic_file(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; it becomes ``path`` when the block ends well.

    Raises:
        ArtifactError: ``path`` exists and ``overwrite`` is false, or the disk refuses.
    """
    refuse_existing(path, overwrite)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):  # what went wrong before is what the user must read
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty folder ``OUT.partial``; it becomes ``path`` when the block ends well.

    Raises:
        ArtifactError: ``path`` exists and ``overwrite`` is false, or the disk refuses.
    """
    refuse_existing(path, overwrite)
    growing = partial_path(path)
    try:
        with _disk_errors(path):
            shutil.rmtree(growing, ignore_errors=True)
            growing.mkdir(parents=True)
            yield growing
            replace_folder(growing, path)
    finally:
        shutil.rmtree(growing, ignore_errors=True)


def replace_folder(new: Path, path: Path) -> None:
    """Put ``new`` where ``path`` is; what was there goes last, and comes back where that fails."""
    if not path.exists():
        os.replace(new, path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    os.replace(path, old)
    try:
        os.replace(new, path)
    except BaseException:
        os.replace(old, path)
        raise
    shutil.rmtree(old) if old.is_dir() else old.unlink()


def dump_json(kind: str, payload: Mapping[str, Any]) -> str:
    """The text of a JSON artifact of ``kind`` (``eval``, ``plan`` ...); never NaN or infinity."""
    document = {"format": f"scarprune.{kind}", "version": VERSION, **payload}
    try:
        return json.dumps(document, indent=1, allow_nan=False)
    except ValueError as error:
        raise NumericsError(f"A scarprune.{kind} file would hold a number that is not finite.") from error


def write_json(path: Path, kind: str, payload: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Write ``payload`` as a JSON artifact of ``kind``, whole or not at all."""
    text = dump_json(kind, payload)
    with atomic_file(path, overwrite=overwrite) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path, kind: str) -> dict[str, Any]:
    """Read a JSON artifact and check that it is of ``kind`` and of a version known here.

    Raises:
        ArtifactError: missing, not JSON, another kind, or newer.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"There is no file {path}.") from error
    except (OSError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ArtifactError(f"{path} is not a readable JSON file: {error}.") from error
    if not isinstance(document, dict):
        raise ArtifactError(f"{path} is not a scarprune.{kind} file: it holds no JSON object.")
    check_kind(path, kind, document)
    return document


def check_kind(path: Path, kind: str, document: Mapping[str, Any]) -> None:
    """Raise ArtifactError unless ``document`` says it is ``scarprune.<kind>`` of a known version."""
    found, version = document.get("format"), document.get("version")
    if found != f"scarprune.{kind}":
        raise ArtifactError(f"{path} is not a scarprune.{kind} file: its format is {found!r}.")
    if type(version) is not int or version < 1:
        raise ArtifactError(f"{path} has no usable version number: {version!r}.")
    if version > VERSION:
        raise ArtifactError(
            f"{path} has format version {version}; this scarprune reads up to {VERSION}.",
            hint="Update scarprune.",
        )


def write_tensors(
    path: Path,
    kind: str,
    tensors: Mapping[str, np.ndarray],
    header: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Write arrays and a JSON header as one safetensors file, whole or not at all."""
    metadata = {_HEADER: dump_json(kind, header)}
    with atomic_file(path, overwrite=overwrite) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # safetensors would make a file that only its owner may read
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, temporary, metadata=metadata)
        temporary.chmod(mode)


def read_tensors(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what ``write_tensors`` wrote: the header and all arrays.

    Raises:
        ArtifactError: missing, truncated, another kind, newer, or holding numbers that are not finite.
    """
    if not path.is_file():
        raise ArtifactError(f"There is no file {path}.")
    try:
        with safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(_HEADER)
            if text is None:
                raise ArtifactError(f"{path} is a safetensors file, but not a scarprune.{kind} file.")
            header = json.loads(text)
            if not isinstance(header, dict):
                raise ArtifactError(f"{path} is not a scarprune.{kind} file: its header is no JSON object.")
            check_kind(path, kind, header)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged or not a safetensors file: {error}.") from error
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise ArtifactError(f"{path} is damaged: {name} holds numbers that are not finite.")
    return header, tensors
