"""Parts of long work, each written as soon as it is made, so that a later run takes it from there."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scarprune.artifacts import read_json, write_json
from scarprune.errors import ArtifactError

Keep = Callable[[str, Callable[[], Any]], Any]


def keeper(path: Path, kind: str, identity: Mapping[str, Any], resume: bool) -> Keep:
    """``keep(name, make)``: what an earlier run left under ``name`` in ``path``, else ``make()``, kept there.

    Raises:
        ArtifactError: with ``resume``, what lies there is of another ``identity``.
    """
    parts: dict[str, Any] = {}
    if path.exists() and resume:
        kept = read_json(path, kind)
        if json.loads(json.dumps(dict(identity))) != kept.get("identity"):
            raise ArtifactError(
                f"{path} was left by a run with other options, text or weights.",
                hint="Remove it, or run without --resume.",
            )
        parts = kept["parts"]

    def keep(name: str, make: Callable[[], Any]) -> Any:
        if name not in parts:
            parts[name] = make()
            write_json(path, kind, {"identity": dict(identity), "parts": parts}, overwrite=True)
        return parts[name]

    return keep
