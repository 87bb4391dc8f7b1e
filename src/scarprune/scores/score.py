"""What a score declares, the registry, and the one door to all of them."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from scarprune.errors import ArgumentError, NumericsError
from scarprune.profile.sums import ALL_BANDS, Profile

Values = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class Score:
    """A way to rank the channels of a site.

    Attributes:
        name: what a user asks for.
        formula: in one line, of the statistics of channel i; N targets, B blocks, v_i the column of the
            down projection that channel i writes.
        unit: of the number; ``""`` where it has none.
        source: the paper or the code the formula is from.
        needs: names of the statistics in the profile, as ``Profile.get`` takes them.
        compute: ``(profile, bands)`` -> site name to float64 [m]; a score that draws also takes ``seed=``.
        labels: which labels the gradients must have been taken with; None where it needs no gradient.
        aliases: other names for the same score.
        draws: whether the numbers depend on a seed.
        keeps_core: whether a plan by this score always keeps the core.
    """

    name: str
    formula: str
    unit: str
    source: str
    needs: tuple[str, ...]
    compute: Callable[..., Values]
    labels: Literal["data", "model"] | None = None
    aliases: tuple[str, ...] = ()
    draws: bool = False
    keeps_core: bool = False


def register_score(score: Score) -> None:
    """Make ``score`` known under its name and aliases, beside the built-in ones.

    Raises:
        ArgumentError: one of its names is taken.
    """
    _add(_registry(), score)


def scores() -> list[Score]:
    """Every known score once: the built-in ones kin by kin, then those registered later."""
    return list(dict.fromkeys(_registry().values()))


def find_score(name: str) -> Score:
    """The score called ``name``, or with that alias.

    Raises:
        ArgumentError: there is none; the message gives the nearest names.
    """
    registry = _registry()
    if name in registry:
        return registry[name]
    near = difflib.get_close_matches(str(name), registry, n=3, cutoff=0.5)
    nearest = f"Did you mean {' or '.join(near)}? " if near else ""
    raise ArgumentError(
        f"There is no score called {name!r}.", hint=f"{nearest}`scarprune scores` lists all of them."
    )


def score(profile: Profile, name: str, bands: Sequence[int] = ALL_BANDS, seed: int = 0) -> Values:
    """One number per channel, high = keep: site name -> float64 [m], in layer order.

    Args:
        profile: of the model whose channels are ranked.
        name: one of ``scores()``, or an alias.
        bands: bands of positions to count: 0 is position 0, 1 positions 1 to 3, 2 the rest.
        seed: for scores that draw (``random``).

    Raises:
        ArgumentError: no such score, bands or seed, or the score's statistics are kept over all bands alone.
        ArtifactError: the profile lacks a statistic; the message says how to get it.
        NumericsError: a score is not finite.
    """
    found = find_score(name)
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**64:
        raise ArgumentError(f"seed must be an integer from 0 to 2^64 - 1, not {seed!r}.")
    values = found.compute(profile, bands, seed=seed) if found.draws else found.compute(profile, bands)
    for site in profile.sites:
        array = values.get(site.name)
        if array is None or np.shape(array) != (site.width,):
            raise ArgumentError(f"Score {found.name} gave no [{site.width}] array for {site.name}.")
        if not np.isfinite(array).all():
            raise NumericsError(f"Score {found.name} is not finite at {site.name}.")
    return {site.name: np.asarray(values[site.name], dtype=np.float64) for site in profile.sites}


@cache
def _registry() -> dict[str, Score]:
    """Names and aliases -> scores: everything declared as ``SCORES`` in a file of ``kinds/``."""
    package = importlib.import_module("scarprune.scores.kinds")
    registry: dict[str, Score] = {}
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        for declared in importlib.import_module(module.name).SCORES:
            _add(registry, declared)
    return registry


def _add(registry: dict[str, Score], score: Score) -> None:
    names = (score.name, *score.aliases)
    for name in names:
        if name in registry:
            raise ArgumentError(f"A score called {name!r} is already registered.")
    registry.update(dict.fromkeys(names, score))
