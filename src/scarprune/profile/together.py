"""Batches of a run that go through streamed layers together."""

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from scarprune.errors import UnsupportedModelError
from scarprune.profile.layerwise import Layerwise
from scarprune.profile.observer import Observer
from scarprune.profile.proof import Proof
from scarprune.profile.totals import Kept

if TYPE_CHECKING:
    from scarprune.profile.passes import Run


def through_layers(
    run: "Run", layers: Layerwise, observer: Observer, kinds: Sequence[str], proof: Proof
) -> bool:
    """Take all batches of ``proof`` forward and back through one layer after another.

    The totals of ``observer`` count all of them or none: False where they overflowed, or the compiled ones
    are wrong, to be tried again.

    Raises:
        UnsupportedModelError: an observer that needs the whole model.
    """
    if not isinstance(observer, Kept):
        raise UnsupportedModelError(
            "This measurement needs the whole model in memory, and this one's layers are streamed.",
            hint="Load it without streamed=True.",
        )
    before = {key: array.copy() for key, array in observer.arrays().items()}
    whole = False
    try:
        slopes = [
            _at_last_layer(run, layers, observer, kinds, proof, number, hidden)
            for number, hidden in enumerate(layers.forward(proof.batches, proof.running))
        ]
        with contextlib.closing(layers.back(observer.rest)) as steps:
            for index, part, given in steps:
                rows = proof.batches[part]
                observer.begin(run.groups[rows], given.shape[1])
                with torch.enable_grad(), proof.running(part):
                    out = layers.walk.step(index, given.requires_grad_(index > 0))
                    slopes[part] = run.backward(observer, out, slopes[part], given)
                del out  # before the next batch is computed
                proof.see(part, observer)
                if proof.counts(part) and not run.committed(observer, rows):
                    return False
        whole = proof.holds()
    finally:
        if not whole:
            observer.restore(before)
    return whole


def _at_last_layer(
    run: "Run",
    layers: Layerwise,
    observer: Observer,
    kinds: Sequence[str],
    proof: Proof,
    number: int,
    hidden: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """The gradients of the scaled loss at what the last layer made."""
    given = hidden.detach().requires_grad_()
    with torch.enable_grad():
        out = layers.finish(given)
    with proof.running(number):
        gradients = run.gradients(observer, kinds, proof.batches[number], out)
    return run.backward(observer, out, gradients, given)
