"""Finished runs of a sweep, a line each, in a file that only ever grows."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scarprune.artifacts import VERSION, check_kind
from scarprune.errors import ArtifactError
from scarprune.pipeline.sweep.grid import Run, Way
from scarprune.runtime.progress import remark

RUNS = "runs.jsonl"
_KIND = "run"
Line = dict[str, Any]


class Ledger:
    """The file ``runs.jsonl`` of a sweep."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / RUNS

    def read(self) -> dict[Run, Line]:
        """The finished runs; what a kill left of a last line is taken off the file.

        Raises:
            ArtifactError: a line before the last is damaged, or of another kind.
        """
        if not self.path.exists():
            return {}
        written = self.path.read_bytes()
        whole = written[: written.rfind(b"\n") + 1]
        if whole != written:
            remark(f"The last line of {self.path} was not finished; that run is made again.")
            os.truncate(self.path, len(whole))
        lines = enumerate(whole.splitlines(), start=1)
        return dict(self._read(number, line) for number, line in lines)

    def append(self, run: Run, facts: Mapping[str, Any]) -> Line:
        """Write a finished run through to the disk; returns its line."""
        numbers = {**run.way.as_json(), "sparsity": run.sparsity, "seed": run.seed}
        line = {"format": f"scarprune.{_KIND}", "version": VERSION, **numbers, **facts}
        try:
            with self.path.open("ab") as file:
                file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ArtifactError(f"{self.path} could not be written: {error.strerror or error}.") from error
        return line

    def _read(self, number: int, text: bytes) -> tuple[Run, Line]:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            line = json.loads(text)
            if isinstance(line, dict):
                check_kind(self.path, _KIND, line)
                way = Way(line["score"], line["compensate"], line["protect"])
                return Run(way, float(line["sparsity"]), int(line["seed"])), line
        raise ArtifactError(
            f"{self.path} is damaged: line {number} is no finished run.", hint="Take the line out of it."
        )


def check_same(path: Path, line: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise ArtifactError unless ``line`` was made with the ``expected`` settings."""
    found = line.get("settings") or {}
    for key, value in expected.items():
        if found.get(key) != value:
            raise ArtifactError(
                f"{path} belongs to another sweep: its {key.replace('_', ' ')} is "
                f"{_short(found.get(key))}, not {_short(value)}.",
                hint="Choose another --out, or --overwrite it.",
            )


def _short(value: Any) -> str:
    return value[:16] if isinstance(value, str) else str(value)
