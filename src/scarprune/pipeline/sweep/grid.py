"""Which runs a sweep is made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from scarprune.cut.compensate.compensation import find_compensation
from scarprune.errors import ArgumentError
from scarprune.scores.score import Score, find_score, scores

Protect = Literal["core"] | None
_PAPERS_OWN = ("loss_proxy", "loss_proxy_factored")  # the SCAR scores are known by the core that they keep
_OURS = "scarprune:"  # how the source of a score that is nobody else's begins


@dataclass(frozen=True, slots=True)
class Way:
    """One way to prune.

    Attributes:
        score: what ranks the channels.
        compensate: how those that stay make up for those that go.
        protect: ``"core"`` where the core is kept whatever its score.
    """

    score: str
    compensate: str = "none"
    protect: Protect = None

    @property
    def words(self) -> str:
        """For people: ``loss_proxy + ls, core kept``."""
        made_up = "" if self.compensate == "none" else f" + {self.compensate}"
        return f"{self.score}{made_up}{', core kept' if self.protect else ''}"

    def as_json(self) -> dict[str, Any]:
        """The fields."""
        return {"score": self.score, "compensate": self.compensate, "protect": self.protect}


@dataclass(frozen=True, slots=True)
class Run:
    """One model to be pruned and judged: a way at a sparsity, from the profile of a seed."""

    way: Way
    sparsity: float
    seed: int

    @property
    def as_masks(self) -> bool:
        """Whether it is judged on the dense model, where others can be judged with it."""
        return self.way.compensate == "none"

    @property
    def words(self) -> str:
        """For people: ``loss_proxy + ls at 50%, seed 0``."""
        return f"{self.way.words} at {100 * self.sparsity:g}%, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Grid:
    """All runs of a sweep.

    Attributes:
        ways: each once, in the order they are reported.
        sparsities: each once.
        seeds: each once; of drawing the calibration text, of sampled labels and of scores that draw.
    """

    ways: tuple[Way, ...]
    sparsities: tuple[float, ...]
    seeds: tuple[int, ...]

    def runs(self) -> list[Run]:
        """Seed by seed, so that one profile is in memory at a time; what needs no copy of the model first."""
        ordered = sorted(self.ways, key=lambda way: way.compensate != "none")
        return [Run(way, f, seed) for seed in self.seeds for way in ordered for f in self.sparsities]

    @property
    def scores(self) -> tuple[str, ...]:
        """Every score once."""
        return tuple(dict.fromkeys(way.score for way in self.ways))

    @property
    def compensations(self) -> tuple[str, ...]:
        """Every compensation once."""
        return tuple(dict.fromkeys(way.compensate for way in self.ways))


def grid(
    scores: Sequence[str],
    sparsities: Sequence[float],
    compensate: Sequence[str] = ("none",),
    protect: Sequence[str] = ("none",),
    seeds: Sequence[int] = (0,),
) -> Grid:
    """Every score with every compensation and protection; equal ones once.

    Args:
        scores: names, aliases, ``all``, or ``baselines``: those that are neither the paper's nor ours.
        sparsities: shares of the channels that go.
        compensate: names of compensations.
        protect: ``none``, ``core`` or both; a score that always keeps the core is there once.
        seeds: from 0 on.

    Raises:
        ArgumentError: no such score, compensation or protection, a negative seed, or nothing to run.
    """
    if wrong := [word for word in protect if word not in ("none", "core")]:
        raise ArgumentError(f"protect must be none or core, not {wrong[0]!r}.")
    if wrong_seeds := [seed for seed in seeds if seed < 0]:
        raise ArgumentError(f"A seed must be 0 or more, not {wrong_seeds[0]}.")
    kinds = [find_compensation(name).name for name in compensate]
    ways = [
        Way(score.name, kind, "core" if word == "core" or score.keeps_core else None)
        for score in _chosen(scores)
        for kind in kinds
        for word in protect
    ]
    made = Grid(
        ways=tuple(dict.fromkeys(ways)),
        sparsities=tuple(dict.fromkeys(map(float, sparsities))),
        seeds=tuple(dict.fromkeys(seeds)),
    )
    if not made.runs():
        raise ArgumentError("There is nothing to run: scores, sparsities and seeds each need one at least.")
    return made


def reference_of(grid: Grid, words: str | None) -> Way:
    """The way that others are compared with: ``SCORE[:COMPENSATION[:PROTECT]]``, the first where None.

    Parts that are not named are those of the first way of the score that the grid has.

    Raises:
        ArgumentError: the grid has no such way.
    """
    if words is None:
        return grid.ways[0]
    score, compensate, protect, *more = (*words.split(":"), None, None)
    name = find_score(str(score)).name
    for way in grid.ways:
        alike = way.score == name and compensate in (None, way.compensate)
        if not any(more) and alike and protect in (None, way.protect or "none"):
            return way
    raise ArgumentError(
        f"The reference {words!r} is not among what is compared.",
        hint="Name it as SCORE, SCORE:COMPENSATION or SCORE:COMPENSATION:PROTECT, and add it to the sweep.",
    )


def _chosen(names: Sequence[str]) -> list[Score]:
    found: list[Score] = []
    for name in names:
        if name == "all":
            found.extend(scores())
        elif name == "baselines":
            found.extend(score for score in scores() if _is_baseline(score))
        else:
            found.append(find_score(name))
    return found


def _is_baseline(score: Score) -> bool:
    return not (score.keeps_core or score.name in _PAPERS_OWN or score.source.startswith(_OURS))
