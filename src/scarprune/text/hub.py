"""Hugging Face data sets, from the hub or a local folder: ``hf:NAME[:CONFIG]:SPLIT``."""

import re
from pathlib import Path
from typing import Any

from scarprune.errors import TextError
from scarprune.text.rows import as_documents, choose_column, numbered
from scarprune.text.source import missing_package

_FORM = "hf:NAME[:CONFIG]:SPLIT"


def read_dataset(source: str, field: str, tokenizer: Any | None) -> list[str]:
    """One document per row of the split that ``source`` names.

    ``NAME`` is a hub id, a folder of data files, or a folder that ``Dataset.save_to_disk`` wrote.

    Raises:
        TextError: misspelt, not found, without the field, or the package datasets is not installed.
    """
    name, config, split = parse(source)
    try:
        import datasets
        from datasets.exceptions import DatasetsError
    except ImportError as error:
        raise missing_package(source, "datasets", "datasets") from error
    try:
        if (Path(name) / "dataset_dict.json").is_file() or (Path(name) / "state.json").is_file():
            rows = _pick_split(datasets.load_from_disk(name), split, source)
        else:
            rows = datasets.load_dataset(name, config, split=split)
    except (DatasetsError, OSError, ValueError, RuntimeError, KeyError, NotImplementedError) as error:
        if isinstance(error, TextError):
            raise
        raise TextError(f"{source} could not be loaded: {' '.join(str(error).split())}") from error
    column = choose_column(rows.column_names, field, source)
    return list(as_documents(numbered(rows[column], source), tokenizer))


def parse(source: str) -> tuple[str, str | None, str]:
    """Name, config (or None) and split; a colon inside brackets belongs to the split (``train[:100]``).

    Raises:
        TextError: not of this form.
    """
    parts = re.split(r":(?![^\[]*\])", source.removeprefix("hf:"))
    if len(parts) not in (2, 3) or not all(parts):
        raise TextError(f"{source} does not name a data set and its split.", hint=f"The form is {_FORM}.")
    return parts[0], parts[1] if len(parts) == 3 else None, parts[-1]


def _pick_split(loaded: Any, split: str, source: str) -> Any:
    """The split of what ``load_from_disk`` returned: a dict of data sets, or one data set."""
    splits = loaded if isinstance(loaded, dict) else {str(loaded.split or split): loaded}
    if split not in splits:
        raise TextError(f"{source} has no split {split!r}; its splits are: {', '.join(splits)}.")
    return splits[split]
