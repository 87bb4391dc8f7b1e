"""Weights of a cut model that are no slices of its source; knows nothing of torch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scarprune.cut.transfer import Transfer
from scarprune.errors import ArtifactError
from scarprune.models.names import canonical


@dataclass(frozen=True)
class Changed:
    """What a compensation changed.

    Attributes:
        compensation: what the report says of it.
        words: name of a parameter -> from a safetensors dtype to its values, as unsigned words.
    """

    compensation: Mapping[str, Any]
    words: Mapping[str, Callable[[str], np.ndarray]]

    def among(self, transfers: Sequence[Transfer]) -> list[Transfer]:
        """``transfers`` with the changed values in the place of slices of the source.

        Raises:
            ArtifactError: the checkpoint stores a changed weight in another way than the model.
        """
        left = {canonical(name): words for name, words in self.words.items()}
        found = [replace(t, words=left.pop(canonical(t.tensor.name), None)) for t in transfers]
        if left:
            raise ArtifactError(f"{next(iter(left))} was changed, but the source stores no such tensor.")
        return found
