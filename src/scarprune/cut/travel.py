"""What goes along with the weights from one model folder to another, and what stays behind."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scarprune.artifacts import partial_path
from scarprune.errors import ArgumentError
from scarprune.models.checkpoint import CONFIG

CARD, PLAN, HEAL = "README.md", "scarprune-plan.json", "scarprune-heal.json"
_WEIGHTS = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack", ".onnx", ".onnx_data"}
    | {".ot", ".tflite", ".npz", ".mlmodel"}
)
_WEIGHT_FOLDERS = frozenset({"original", "onnx", "openvino", "coreml", "metal", "gguf", "tflite"})
_REWRITTEN = frozenset({CARD, CONFIG, PLAN, HEAL})


def refuse_overlap(source: Path, out: Path) -> None:
    """Refuse an output that is the source, lies inside it, or holds it.

    Raises:
        ArgumentError: writing ``out`` would change or delete ``source``.
    """
    there, here = source.resolve(), out.resolve()
    if there == here:
        raise ArgumentError(f"{out} is the source itself.", hint="Choose another folder for the output.")
    if here.is_relative_to(there):
        raise ArgumentError(f"{out} lies inside the source {source}.", hint="Choose a folder outside of it.")
    if there.is_relative_to(here) or there.is_relative_to(partial_path(here)):
        raise ArgumentError(
            f"{out} would replace the source {source}.", hint="Choose another folder for the output."
        )


def companions(source: Path, *, code: bool = False) -> Iterator[Path]:
    """Paths, relative to ``source``, of the files that travel along unchanged.

    Tokenizer files, generation config, chat templates, licences and the like; no weights in any format, no
    index of them, nothing hidden, no Python files unless ``code``.
    """
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        hidden = any(part.startswith(".") for part in relative.parts)
        if (
            hidden
            or not path.is_file()
            or relative.parts[0] in _WEIGHT_FOLDERS
            or str(relative) in _REWRITTEN
        ):
            continue
        if path.suffix.lower() in _WEIGHTS or path.name.endswith(".index.json"):
            continue
        if code or path.suffix != ".py":
            yield relative


def copy_companions(source: Path, out: Path, *, code: bool = False) -> None:
    """Copy what travels along; links are followed, so that the output stands alone."""
    for relative in companions(source, code=code):
        target = out / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / relative, target)


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.json`` as transformers lays it out, keys in the order given."""
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
