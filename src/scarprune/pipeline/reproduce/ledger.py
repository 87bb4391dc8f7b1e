"""OUT.partial while a reproduction grows: which steps are done, and what everything there belongs to."""

import json
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scarprune.artifacts import partial_path, read_json, refuse_existing, replace_folder, write_json
from scarprune.errors import ArtifactError
from scarprune.runtime.progress import duration, remark

STATE, _KIND = "state.json", "reproduction-state"


class Ledger:
    """The folder a reproduction grows in; ``state.json`` tells its options, weights and finished steps.

    With ``resume`` a finished OUT is gone on with as well: it becomes OUT.partial until it is whole again.

    Raises:
        ArtifactError: OUT is there already, or what lies there is of another model or other options.
    """

    def __init__(self, out: Path, options: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
        self.out, self.folder = out, partial_path(out)
        self.resume = resume
        goes_on = resume and not self.folder.exists() and (out / STATE).is_file()
        if goes_on:
            self._check(out, options)
            out.rename(self.folder)
        refuse_existing(out, overwrite)
        if self.folder.exists() and not resume:
            remark(f"Beginning again; {self.folder} is dropped (--resume would go on from it).")
            shutil.rmtree(self.folder)
        self._state: dict[str, Any] = {"options": dict(options), "weights": None, "steps": {}}
        if (self.folder / STATE).exists():
            self._state = self._check(self.folder, options)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write()

    @property
    def seconds(self) -> dict[str, float]:
        """Finished steps and how long each took."""
        return dict(self._state["steps"])

    def done(self, step: str) -> bool:
        """Whether ``step`` is finished."""
        return step in self._state["steps"]

    def run(self, step: str, make: Callable[[], None]) -> None:
        """``make()`` unless ``step`` is finished already."""
        if self.done(step):
            remark(f"{step}: there already.")
            return
        remark(f"{step} ...")
        began = time.monotonic()
        make()
        took = time.monotonic() - began
        self._state["steps"][step] = took
        self._write()
        remark(f"{step}: done in {duration(took)}.")

    def check_weights(self, fingerprint: str) -> None:
        """Remember whose numbers these are.

        Raises:
            ArtifactError: those that lie here are of other weights.
        """
        known = self._state["weights"]
        if known is not None and known != fingerprint:
            raise ArtifactError(
                f"{self.folder} is of other weights: {known[:12]}, not {fingerprint[:12]}.",
                hint="Choose another --out, or run without --resume to begin again.",
            )
        if known is None:
            self._state["weights"] = fingerprint
            self._write()

    def finish(self) -> None:
        """All asked for is there: the folder becomes OUT."""
        replace_folder(self.folder, self.out)

    def _check(self, folder: Path, options: Mapping[str, Any]) -> dict[str, Any]:
        state = read_json(folder / STATE, _KIND)
        kept, asked = state.get("options", {}), json.loads(json.dumps(dict(options)))
        for key, value in asked.items():
            if kept.get(key) != value:
                raise ArtifactError(
                    f"{folder} was begun with {key.replace('_', ' ')} {kept.get(key)!r}, not {value!r}.",
                    hint="Choose another --out, or run without --resume to begin again.",
                )
        return {key: state[key] for key in ("options", "weights", "steps")}

    def _write(self) -> None:
        write_json(self.folder / STATE, _KIND, self._state, overwrite=True)
