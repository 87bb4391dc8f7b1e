"""Local task files of lm_eval: what is one, and which of them bring Python code along."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from scarprune.errors import TextError, one_line

_SUFFIXES = (".yaml", ".yml")


def is_local(name: str) -> bool:
    """Whether ``name`` is a task file or a folder of them; a word without a slash is a task of lm_eval."""
    return name.endswith(_SUFFIXES) or "/" in name or "\\" in name


def refuse_code(path: Path) -> None:
    """Refuse task files whose ``!function`` calls Python that stands beside them.

    This is the way that lm_eval documents; templates (Jinja's) and metrics are not searched for others.

    Raises:
        TextError: such a call, nothing there, or a file that is no YAML.
    """
    for file in _files(path):
        if _calls_python(file, set()):
            raise TextError(
                f"The task file {file} calls Python code of its own, which scarprune runs only when told to.",
                hint="Pass --trust-remote-code if you trust it.",
            )


def _files(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise TextError(f"There is no task file or folder {path}.")
    inside = sorted(path.rglob("*.yaml")) if path.is_dir() else [path]  # the ending that lm_eval looks for
    if not inside:
        raise TextError(f"The folder {path} holds no task files (.yaml).")
    yield from inside


class _CodeError(Exception):
    pass


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Plain data, as lm_eval reads it, but for the tag that imports a function."""


def _refuse(loader: yaml.SafeLoader, node: yaml.Node) -> Any:
    raise _CodeError


_Loader.add_constructor("!function", _refuse)


def _calls_python(file: Path, seen: set[Path]) -> bool:
    """Whether ``file`` or one that it includes imports a function."""
    if file in seen:
        return False
    seen.add(file)
    try:
        content = yaml.load(file.read_text(encoding="utf-8"), Loader=_Loader)
    except _CodeError:
        return True
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise TextError(f"{file} is not a readable task file: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise TextError(f"{file} is not a task file: it holds no keys.")
    included = content.get("include") or []
    names = included if isinstance(included, list) else [included]
    return any(_calls_python((file.parent / str(name)).resolve(), seen) for name in names)
