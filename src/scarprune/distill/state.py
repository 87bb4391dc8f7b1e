"""What a killed heal leaves behind, so that it can go on to the same weights."""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scarprune.artifacts import read_tensors, write_tensors
from scarprune.errors import ArtifactError

_KIND = "heal-state"
_SECONDS_BETWEEN = 60.0


@dataclass
class State:
    """How far training has come; with the weights and the optimizer's moments it is all there is.

    Attributes:
        step: optimizer steps done; batches follow from their number.
        elapsed: seconds spent, over all runs.
        began: what ``elapsed`` was when the first step began.
        before: nats per token on the held-out blocks at the start.
        best: the lowest since.
        rate: the highest learning rate.
        judged: judgements done, the first one not counted.
        judgements: how many there will be.
        history: what was seen at each of them.
    """

    step: int = 0
    elapsed: float = 0.0
    began: float = 0.0
    before: float = 0.0
    best: float = 0.0
    rate: float = 0.0
    judged: int = 0
    judgements: int = 1
    history: list[dict[str, Any]] = field(default_factory=list)


class Keeper:
    """Writes the state to ``path`` now and then; with no path, does nothing."""

    def __init__(self, path: Path | None, identity: Mapping[str, Any]) -> None:
        self.path = path
        self._identity = json.loads(json.dumps(dict(identity)))
        self._last = time.monotonic()
        self._cost = 0.0

    def due(self) -> bool:
        """Whether it is time to write: a minute on, or longer where writing itself is slow."""
        pause = max(_SECONDS_BETWEEN, 20 * self._cost)
        return self.path is not None and time.monotonic() - self._last > pause

    def keep(self, state: State, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write the state and the tensors that belong to it."""
        if self.path is None:
            return
        began = time.monotonic()
        arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in tensors.items()}
        header = {"identity": self._identity, "state": asdict(state)}
        write_tensors(self.path, _KIND, arrays, header, overwrite=True)
        self._last = time.monotonic()
        self._cost = self._last - began

    def load(self) -> tuple[State, dict[str, np.ndarray]] | None:
        """The state to go on from, or None where there is none.

        Raises:
            ArtifactError: the state is damaged, or of other models, text or settings.
        """
        if self.path is None or not self.path.exists():
            return None
        header, arrays = read_tensors(self.path, _KIND)
        try:
            found = header["identity"]
            differing = [key for key in self._identity if found.get(key) != self._identity[key]]
            state = State(**header["state"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{self.path} is damaged: it holds no usable state ({error!r}).") from error
        if differing:
            raise ArtifactError(
                f"{self.path} belongs to another heal: its {', '.join(differing)} differ.",
                hint="Run without --resume to begin again.",
            )
        return state, arrays
