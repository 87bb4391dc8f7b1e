"""What a killed run leaves behind, so that it can go on to the same sums."""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from scarprune.artifacts import read_tensors, write_tensors
from scarprune.errors import ArtifactError
from scarprune.runtime.ranks import ALONE, Ranks

_KIND = "profile-state"
_SECONDS_BETWEEN = 30.0


@dataclass
class State:
    """How far a run has come.

    Attributes:
        identity: what must be equal for a run to go on: weights, text, labels, rho, seed, what is asked for.
        phase: the pass it is in; every pass before it is finished.
        next_block: the first block of that pass not yet in the totals.
        batch: blocks at once; used again, since the order of additions is part of the sums.
        scale: what the loss was last multiplied by.
        arrays: totals by pass: ``1/...``, ``2/...`` and so on, float64.
    """

    identity: dict[str, Any]
    phase: int = 1
    next_block: int = 0
    batch: int = 0
    scale: float = 1.0
    arrays: dict[str, np.ndarray] = field(default_factory=dict)

    def of_pass(self, number: int) -> dict[str, np.ndarray]:
        """The totals of one pass."""
        prefix = f"{number}/"
        return {key.removeprefix(prefix): a for key, a in self.arrays.items() if key.startswith(prefix)}


class Keeper:
    """Writes the state every half minute, and whenever told to; with no path, does nothing.

    One copy of the model has one state, written by the process with its first part: the file ``path``, or
    where there are several copies a file for each in the folder ``path``.
    """

    def __init__(self, path: Path | None, ranks: Ranks = ALONE) -> None:
        self.root = self.path = path
        self.ranks = ranks
        if path is not None and ranks.copies > 1:
            self.path = path / f"{ranks.copy + 1}{self._ending}"
        self._last = time.monotonic()
        self._cost = 0.0

    @property
    def keeps(self) -> bool:
        """Whether there is a file to go on from."""
        return self.path is not None

    def due(self) -> bool:
        """Whether it is time to write: half a minute on, or longer where writing itself is slow."""
        pause = max(_SECONDS_BETWEEN, min(20 * self._cost, 55.0))
        return self.path is not None and time.monotonic() - self._last > pause

    def keep(self, state: State) -> None:
        """Write the state now."""
        if self.path is None or self.ranks.part > 0:
            return
        began = time.monotonic()
        header = {
            "identity": state.identity,
            "phase": state.phase,
            "next_block": state.next_block,
            "batch": state.batch,
            "scale": state.scale,
        }
        write_tensors(self.path, _KIND, state.arrays, header, overwrite=True)
        self._last = time.monotonic()
        self._cost = self._last - began

    def load(self, identity: Mapping[str, Any]) -> State | None:
        """The state to go on from, or None where there is none.

        Raises:
            ArtifactError: the state is damaged, of another model, text or measurement, or divided otherwise.
        """
        if self.path is None:
            return None
        self._refuse_other_division()
        if not self.path.exists():
            return None
        header, arrays = read_tensors(self.path, _KIND)
        try:
            found, expected = header["identity"], json.loads(json.dumps(dict(identity)))
            differing = [key for key in expected if found.get(key) != expected[key]]
            state = State(
                identity=dict(identity),
                phase=int(header["phase"]),
                next_block=int(header["next_block"]),
                batch=int(header["batch"]),
                scale=float(header["scale"]),
                arrays=arrays,
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ArtifactError(f"{self.path} is damaged: it holds no usable state ({error!r}).") from error
        if differing:
            raise ArtifactError(
                f"{self.path} belongs to another measurement: its {', '.join(differing)} differ.",
                hint="Run without --resume to begin again.",
            )
        return state

    @property
    def _ending(self) -> str:
        return f"-of-{self.ranks.copies}.safetensors"

    def _refuse_other_division(self) -> None:
        """Refuse a state whose blocks were divided between another number of copies."""
        assert self.root is not None
        if self.root.is_dir():
            right = all(file.name.endswith(self._ending) for file in self.root.glob("*.safetensors"))
            right &= self.ranks.copies > 1
        else:
            right = self.ranks.copies == 1 or not self.root.exists()
        if not right:
            raise ArtifactError(
                f"{self.root} was left by another number of processes than {self.ranks.copies}.",
                hint="Go on with as many as before, or run without --resume to begin again.",
            )

    def remove(self) -> None:
        """Take the state away: the run has ended well in all processes."""
        self.ranks.wait()
        if self.root is not None and self.ranks.first:
            drop_state(self.root)


def drop_state(root: Path) -> None:
    """Remove what keepers wrote to ``root``, where anything is."""
    if root.is_dir():
        shutil.rmtree(root)
    else:
        root.unlink(missing_ok=True)
