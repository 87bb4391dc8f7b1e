"""The tokenizer beside a model, where there is one."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from scarprune.models.failures import as_sentences
from scarprune.models.quiet import quiet
from scarprune.models.source import Origin, locate

_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
)


def load_tokenizer(
    source: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> Any | None:
    """The tokenizer of what ``load_model`` takes, without the model; None where it has none.

    Raises:
        ArtifactError: nothing there, or damaged files.
    """
    return tokenizer_of(locate(source, revision, code=trust_remote_code), trust_remote_code=trust_remote_code)


def tokenizer_of(origin: Origin, *, trust_remote_code: bool = False) -> Any | None:
    """As ``load_tokenizer``, of files found before."""
    folder: Path = origin.path.parent if origin.gguf else origin.path
    extra = {"gguf_file": origin.path.name} if origin.gguf else {}
    if not origin.gguf and not any((folder / name).is_file() for name in _FILES):
        return None
    with as_sentences(origin, "The tokenizer", trust_remote_code=trust_remote_code), quiet():
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code, **extra)
