"""From what a user names to documents: files, data sets and the texts shipped with scarprune."""

import difflib
import os
from pathlib import Path
from typing import Any

from scarprune import demo
from scarprune.errors import TextError
from scarprune.text.hub import read_dataset
from scarprune.text.rows import read_jsonl, read_parquet
from scarprune.text.source import kind_of, read_text, require_file

_KINDS = ".txt, .jsonl, .parquet or .npy (each also under .xz, .gz or .zst)"


def read_documents(
    source: str | os.PathLike[str], *, field: str = "text", tokenizer: Any | None = None
) -> list[str]:
    """The documents of a text source, in its order; rows without any text stay as empty documents.

    Args:
        source: a ``.txt`` (documents separated by three newlines, otherwise one), ``.jsonl`` or ``.parquet``,
            plain or under ``.xz``, ``.gz``, ``.zst``; ``hf:NAME[:CONFIG]:SPLIT``; ``demo`` (the shipped
            calibration text), ``demo:calibration`` or ``demo:evaluation``.
        field: which field of a row holds the text; rows without it may hold ``messages``, a chat.
        tokenizer: renders chats through its template; not needed for text.

    Raises:
        TextError: missing, empty, damaged, of an unknown kind, or without text where it should be.
    """
    name = os.fspath(source)
    if name.startswith("hf:"):
        documents = read_dataset(name, field, tokenizer)
    elif name == "demo" or name.startswith("demo:"):
        documents = _split(read_text(_demo_path(name)))
    else:
        documents = _read_file(Path(name), field, tokenizer)
    if not any(documents):
        raise TextError(f"{name} holds no text.")
    return documents


def _read_file(path: Path, field: str, tokenizer: Any | None) -> list[str]:
    require_file(path)
    match kind_of(path):
        case ".txt":
            return _split(read_text(path))
        case ".jsonl":
            return read_jsonl(path, field, tokenizer)
        case ".parquet":
            return read_parquet(path, field, tokenizer)
        case ".npy":
            raise TextError(f"{path} holds token ids, not text.")
        case kind:
            raise TextError(f"{path} is of an unknown kind {kind!r}.", hint=f"Text is a {_KINDS}.")


def _split(text: str) -> list[str]:
    return [part for part in text.split("\n\n\n") if part and not part.isspace()]


def _demo_path(name: str) -> Path:
    part = name.partition(":")[2] or "calibration"
    if part == "calibration":
        return demo.text_path("calibration")
    if part == "evaluation":
        return demo.text_path("evaluation")
    near = difflib.get_close_matches(part, ("calibration", "evaluation"), n=1)
    hint = f"Did you mean demo:{near[0]}?" if near else "There are demo:calibration and demo:evaluation."
    raise TextError(f"{name} is no text that scarprune carries.", hint=hint)
