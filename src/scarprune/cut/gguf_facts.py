"""What a GGUF file says of itself, read from its first kilobytes without the package ``gguf``.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from pathlib import Path
from typing import Any, BinaryIO

_NUMBERS = dict(enumerate(("B", "b", "H", "h", "I", "i", "f", "?"))) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_LARGEST = 1 << 20  # of a string or an array worth reading; the vocabulary, which is larger, comes last
_HUB = "https://huggingface.co/"


def gguf_front_matter(path: Path) -> dict[str, Any]:
    """Licence, language, tags and base model of a GGUF file under the names of a model card's header.

    Empty for a file that cannot be read that far: nothing hangs on it.
    """
    try:
        with path.open("rb") as file:
            found = _general(file)
    except (OSError, struct.error, UnicodeDecodeError, ValueError):
        return {}
    front = {
        "license": found.get("license"),
        "license_name": found.get("license.name"),
        "license_link": found.get("license.link"),
        "language": found.get("languages"),
        "tags": found.get("tags"),
        "base_model": str(found.get("base_model.0.repo_url", "")).removeprefix(_HUB) or None,
    }
    return {key: value for key, value in front.items() if value}


def _general(file: BinaryIO) -> dict[str, Any]:
    """The leading keys under ``general.``."""
    if file.read(4) != b"GGUF":
        raise ValueError("not GGUF")
    version, _, keys = struct.unpack("<IQQ", file.read(20))
    if version < 2:
        raise ValueError("lengths of another size")
    found = {}
    for _ in range(keys):
        key = _value(file, _STRING)
        kind = struct.unpack("<I", file.read(4))[0]
        if kind == _ARRAY and not key.startswith("general."):
            break
        value = _value(file, kind)
        if key.startswith("general."):
            found[key.removeprefix("general.")] = value
    return found


def _value(file: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return file.read(_length(file)).decode()
    if kind == _ARRAY:
        inner = struct.unpack("<I", file.read(4))[0]
        return [_value(file, inner) for _ in range(_length(file))]
    if kind not in _NUMBERS:
        raise ValueError(f"no value of kind {kind}")
    size = struct.calcsize(_NUMBERS[kind])
    return struct.unpack(f"<{_NUMBERS[kind]}", file.read(size))[0]


def _length(file: BinaryIO) -> int:
    length = int(struct.unpack("<Q", file.read(8))[0])
    if length > _LARGEST:
        raise ValueError(f"{length} are too many")
    return length
