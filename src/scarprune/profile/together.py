"""Batches of a run that go through streamed layers together."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from scarprune.errors import UnsupportedModelError
from scarprune.profile.accumulate import SumsPass
from scarprune.profile.layerwise import Layerwise
from scarprune.profile.observer import Observer
from scarprune.profile.totals import Totals

if TYPE_CHECKING:
    from scarprune.profile.passes import Run


def through_layers(
    run: "Run", layers: Layerwise, observer: Observer, kinds: Sequence[str], parts: Sequence[np.ndarray]
) -> bool:
    """Take all ``parts`` forward and back through one layer after another.

    The totals of ``observer`` count all of them or none: False where they overflowed, to be tried again.

    Raises:
        UnsupportedModelError: an observer that needs the whole model.
    """
    if not isinstance(observer, SumsPass | Totals):
        raise UnsupportedModelError(
            "This measurement needs the whole model in memory, and this one's layers are streamed.",
            hint="Load it without streamed=True.",
        )
    before = {key: array.copy() for key, array in observer.arrays().items()}
    whole = False
    try:
        slopes = [
            _at_last_layer(run, layers, observer, kinds, rows, hidden)
            for rows, hidden in zip(parts, layers.forward(parts, run.running), strict=True)
        ]
        with contextlib.closing(layers.back(observer.rest)) as steps:
            for index, part, given in steps:
                rows = parts[part]
                observer.begin(run.groups[rows], given.shape[1])
                with torch.enable_grad(), run.running(rows):
                    out = layers.walk.step(index, given.requires_grad_(index > 0))
                    slopes[part] = run.backward(observer, out, slopes[part], given)
                del out  # before the next batch is computed
                if not run.committed(observer, rows):
                    return False
        whole = True
    finally:
        if not whole:
            observer.restore(before)
    return True


def _at_last_layer(
    run: "Run",
    layers: Layerwise,
    observer: Observer,
    kinds: Sequence[str],
    rows: np.ndarray,
    hidden: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """The gradients of the scaled loss at what the last layer made."""
    given = hidden.detach().requires_grad_()
    with torch.enable_grad():
        out = layers.finish(given)
    return run.backward(observer, out, run.gradients(observer, kinds, rows, out), given)
