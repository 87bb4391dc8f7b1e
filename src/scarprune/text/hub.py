"""Hugging Face data sets, from the hub or a local folder: ``hf:NAME[:CONFIG]:SPLIT``."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scarprune.errors import TextError, one_line
from scarprune.text.rows import as_documents, choose_column, numbered
from scarprune.text.source import missing_package

_FORM = "hf:NAME[:CONFIG]:SPLIT"
_SECONDS_TO_ANSWER = 5


def read_dataset(source: str, field: str, tokenizer: Any | None) -> list[str]:
    """One document per row of the split that ``source`` names.

    ``NAME`` is a hub id, a folder of data files, or a folder that ``Dataset.save_to_disk`` wrote.

    Raises:
        TextError: misspelt, not found, without the field, or the package datasets is not installed.
    """
    name, config, split = parse(source)
    try:
        import datasets
    except ImportError as error:
        raise missing_package(source, "datasets", "datasets") from error
    offline = False
    try:
        if (Path(name) / "dataset_dict.json").is_file() or (Path(name) / "state.json").is_file():
            rows = _pick_split(datasets.load_from_disk(name), split, source)
        else:
            offline = not Path(name).exists() and not _hub_answers()
            with _offline(datasets) if offline else contextlib.nullcontext():
                rows = datasets.load_dataset(name, config, split=split)
    except TextError:
        raise
    except Exception as error:  # of datasets, of a file's format, of the hub's HTTP library
        if offline:
            raise TextError(
                f"{source} could not be loaded: the hub cannot be reached, and the cache has no copy.",
                hint="Check the connection, or name a file or a folder.",
            ) from error
        raise TextError(f"{source} could not be loaded: {one_line(error)}") from error
    column = choose_column(rows.column_names, field, source)
    return list(as_documents(numbered(rows[column], source), tokenizer))


def _hub_answers() -> bool:
    """Whether the hub can be reached at all; datasets would try for half a minute to find out."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_SECONDS_TO_ANSWER)
    except Exception:  # of one HTTP library or another: no answer, for whatever reason
        return False
    return True


@contextlib.contextmanager
def _offline(datasets: Any) -> Iterator[None]:
    """Only the cache is looked at while the block runs."""
    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


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
