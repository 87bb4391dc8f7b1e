"""Rows of a table (``.jsonl``, ``.parquet``, a data set) as documents."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scarprune.errors import TextError
from scarprune.text.source import missing_package, open_source, read_text

_CHAT = "messages"


def read_jsonl(path: Path, field: str, tokenizer: Any | None) -> list[str]:
    """One document per line that is not blank: its ``field``, or its ``messages`` as a chat.

    Raises:
        TextError: a line is no JSON object or lacks the field; see also ``as_documents``.
    """
    return list(as_documents(_values(path, field), tokenizer))


def read_parquet(path: Path, field: str, tokenizer: Any | None) -> list[str]:
    """One document per row: the column ``field``, or ``messages`` as chats.

    Raises:
        TextError: damaged, without the column, or pyarrow is not installed; see also ``as_documents``.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise missing_package(str(path), "pyarrow", "parquet") from error
    with open_source(path) as file:
        try:
            table = parquet.ParquetFile(file)
            column = choose_column(table.schema_arrow.names, field, str(path))
            rows = table.read(columns=[column]).column(column).to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise TextError(f"{path} is damaged or no parquet file: {error}.") from error
    return list(as_documents(numbered(rows, str(path)), tokenizer))


def numbered(rows: Iterable[Any], source: str) -> Iterator[tuple[str, Any]]:
    """Each row with what an error calls it."""
    for number, row in enumerate(rows):
        yield f"Row {number} of {source}", row


def choose_column(names: Sequence[str], field: str, source: str) -> str:
    """The column that holds the text: ``field``, else the chats in ``messages``.

    Raises:
        TextError: neither is among ``names``.
    """
    for name in (field, _CHAT):
        if name in names:
            return name
    there = ", ".join(map(repr, names)) or "none"
    raise TextError(
        f"{source} has no field {field!r}; its fields are: {there}.", hint="Name one with --field."
    )


def as_documents(values: Iterable[tuple[str, Any]], tokenizer: Any | None) -> Iterator[str]:
    """Text as it is and chats through the tokenizer's template; ``values`` are (name for errors, value).

    Raises:
        TextError: neither text nor a chat, not Unicode, or a chat and no template to render it.
    """
    for where, value in values:
        if isinstance(value, str):
            document = value
        elif isinstance(value, list) and all(isinstance(turn, dict) for turn in value):
            document = _render(value, tokenizer, where)
        else:
            raise TextError(f"{where} holds no text but {_shorten(value)}.")
        if not document.isascii():
            _check_unicode(document, where)
        yield document


def _values(path: Path, field: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line or line.isspace():
            continue
        where = f"Line {number} of {path}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TextError(f"{where} is not JSON: {error}.") from error
        if not isinstance(row, dict):
            raise TextError(f"{where} is no JSON object but {_shorten(row)}.")
        yield where, row[choose_column(list(row), field, where)]


def _render(messages: list[dict[str, Any]], tokenizer: Any | None, where: str) -> str:
    from jinja2 import TemplateError

    if tokenizer is None:
        raise TextError(f"{where} is a chat, and there is no tokenizer to turn it into text.")
    if not tokenizer.chat_template:
        raise TextError(
            f"{where} is a chat, but this model's tokenizer has no chat template.",
            hint="Use text, or the instruct variant of the model.",
        )
    try:
        rendered: str = tokenizer.apply_chat_template(messages, tokenize=False)
    except (TemplateError, TypeError, KeyError, ValueError) as error:
        raise TextError(f"{where} is a chat that the tokenizer's template refuses: {error}.") from error
    return rendered.removeprefix(tokenizer.bos_token or "")  # blocks put BOS in front themselves


def _check_unicode(document: str, where: str) -> None:
    try:
        document.encode()
    except UnicodeEncodeError as error:  # JSON can spell half of a surrogate pair
        raise TextError(
            f"{where} is no valid Unicode: character {error.start} stands for nothing."
        ) from error


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
