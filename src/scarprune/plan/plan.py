"""The plan: the channels of each site that are kept, what chose them, and the weights they belong to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import numpy as np

from scarprune.artifacts import read_json, write_json
from scarprune.errors import ArtifactError, PlanError
from scarprune.models.site import Site
from scarprune.plan.allocate import (
    ALLOCATIONS,
    POOLS,
    Ranked,
    auto_multiple,
    is_allocation,
    pooled,
    scheduled,
    uniform,
)
from scarprune.profile.sums import Profile
from scarprune.runtime.provenance import provenance
from scarprune.scores.core import profile_core
from scarprune.scores.score import find_score
from scarprune.scores.score import score as compute_score


@dataclass(frozen=True, slots=True, eq=False)
class PlannedSite:
    """One site of a plan.

    Attributes:
        name: of the site.
        layer: index of the transformer layer.
        width: channels m before the cut.
        keep: int64, ascending: the channels that stay.
        core: int64, ascending: the channels the loss hangs on most.
    """

    name: str
    layer: int
    width: int
    keep: np.ndarray
    core: np.ndarray

    def __post_init__(self) -> None:
        for word, indices in (("keep", self.keep), ("core", self.core)):
            self._check_indices(word, indices)
        if not len(self.keep):
            raise PlanError(f"The plan keeps no channel of {self.name}.")

    def _check_indices(self, word: str, indices: np.ndarray) -> None:
        if indices.ndim != 1 or indices.dtype != np.int64:
            raise PlanError(f"{word} of {self.name} must be int64 [n], not {indices.dtype} {indices.shape}.")
        outside = indices[(indices < 0) | (indices >= self.width)]
        if len(outside):
            raise PlanError(
                f"{word} of {self.name} holds channel {outside[0]}; its channels are 0 to {self.width - 1}."
            )
        falls = np.flatnonzero(np.diff(indices) <= 0)
        if len(falls):
            a, b = indices[falls[0]], indices[falls[0] + 1]
            raise PlanError(f"{word} of {self.name} must ascend without repeats, but {b} follows {a}.")


@dataclass(frozen=True, eq=False)
class Plan:
    """Which channels of each site are kept.

    Attributes:
        sites: in layer order.
        score: name of the score that ranked the channels.
        sparsity: share of the channels that was asked to go.
        fingerprint: of the weights the plan was made for.
        protect: ``"core"`` where the core was kept whatever its score, else None.
        multiple_of: what the widths were rounded up to.
        allocation: ``uniform``, one pool (``global``, ``global_raw``, ``global_standard``) or a depth
            schedule (``linear:S``, ``middle``).
        cap: largest share of a site that could go; None where the allocation has none.
        seed: what a score that draws was drawn with.
        provenance: where the plan and its profile came from.

    Raises:
        PlanError: an option or an index that cannot be; the message names it.
    """

    sites: tuple[PlannedSite, ...]
    score: str
    sparsity: float
    fingerprint: str
    protect: Literal["core"] | None = None
    multiple_of: int = 1
    allocation: str = "uniform"
    cap: float | None = None
    seed: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_options(self.sparsity, self.protect, self.multiple_of, self.allocation, self.cap)
        if not self.sites:
            raise PlanError("The plan has no sites.")
        if len(self.keep) != len(self.sites):
            raise PlanError("The plan names a site twice.")
        if self.protect == "core":
            for site in self.sites:
                lost = np.setdiff1d(site.core, site.keep)
                if len(lost):
                    raise PlanError(
                        f"The plan protects the core, but removes channel {lost[0]} of {site.name}."
                    )

    @property
    def keep(self) -> dict[str, np.ndarray]:
        """Site name -> ascending int64 of the channels that stay, in layer order."""
        return {site.name: site.keep for site in self.sites}

    @property
    def core(self) -> dict[str, np.ndarray]:
        """Site name -> ascending int64 of the core."""
        return {site.name: site.core for site in self.sites}

    @property
    def widths(self) -> dict[str, int]:
        """Site name -> number of channels that stay."""
        return {site.name: len(site.keep) for site in self.sites}

    @property
    def width(self) -> int | None:
        """The number of channels that stay in every site; None where sites differ."""
        widths = set(self.widths.values())
        return widths.pop() if len(widths) == 1 else None

    @property
    def achieved_sparsity(self) -> float:
        """Share of all channels that really goes, after rounding."""
        before = sum(site.width for site in self.sites)
        return (before - sum(self.widths.values())) / before

    def check(self, sites: Sequence[Site], fingerprint: str | None = None) -> None:
        """Raise PlanError unless the plan is for ``sites`` and, where given, weights of ``fingerprint``."""
        planned, found = {s.name: s.width for s in self.sites}, {s.name: s.width for s in sites}
        if planned.keys() != found.keys():
            odd = next(iter(planned.keys() ^ found.keys()))
            where = "the model does not have" if odd in planned else "it does not cover"
            raise PlanError(f"The plan belongs to another model: there is a site {where}, {odd}.")
        for name, width in planned.items():
            if width != found[name]:
                raise PlanError(
                    f"The plan belongs to another model: {name} has {found[name]} channels, not {width}."
                )
        if fingerprint is not None and fingerprint != self.fingerprint:
            raise PlanError(
                f"The plan was made for other weights: {self.fingerprint[:16]}, not {fingerprint[:16]}.",
                hint="Profile these weights and plan again.",
            )

    def as_json(self) -> dict[str, Any]:
        """The keys of a plan's file."""
        return {
            "provenance": dict(self.provenance),
            "fingerprint": self.fingerprint,
            "score": self.score,
            "sparsity": self.sparsity,
            "achieved_sparsity": self.achieved_sparsity,
            "width": self.width,
            "protect": self.protect,
            "multiple_of": self.multiple_of,
            "allocation": self.allocation,
            "cap": self.cap,
            "seed": self.seed,
            "sites": [
                {
                    "name": site.name,
                    "layer": site.layer,
                    "width_before": site.width,
                    "keep": site.keep.tolist(),
                    "core": site.core.tolist(),
                }
                for site in self.sites
            ],
        }

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write the plan as JSON, whole or not at all (ArtifactError where ``path`` exists)."""
        write_json(Path(path), "plan", self.as_json(), overwrite=overwrite)


def load_plan(path: str | Path) -> Plan:
    """Read a plan.

    Raises:
        ArtifactError: missing, damaged, of another kind or newer.
        PlanError: readable, but no plan: indices out of range, repeated or none, a protected core that is
            not kept, options that cannot be.
    """
    path = Path(path)
    document = read_json(path, "plan")
    try:
        return Plan(
            sites=tuple(_read_site(entry) for entry in _typed(document, "sites", list)),
            score=_typed(document, "score", str),
            sparsity=_typed(document, "sparsity", int, float),
            fingerprint=_typed(document, "fingerprint", str),
            protect=_typed(document, "protect", str, NoneType),
            multiple_of=_typed(document, "multiple_of", int),
            allocation=_typed(document, "allocation", str),
            cap=_typed(document, "cap", int, float, NoneType),
            seed=_typed(document, "seed", int),
            provenance=_typed(document, "provenance", dict),
        )
    except KeyError as error:
        raise ArtifactError(f"{path} is damaged: it has no {error}.") from error
    except PlanError as error:
        raise PlanError(f"{path}: {error.message}", hint=error.hint) from error
    except (TypeError, OverflowError) as error:
        raise ArtifactError(f"{path} is damaged: {error}.") from error


def _read_site(entry: Any) -> PlannedSite:
    if not isinstance(entry, dict):
        raise TypeError("a site is no JSON object")
    return PlannedSite(
        name=_typed(entry, "name", str),
        layer=_typed(entry, "layer", int),
        width=_typed(entry, "width_before", int),
        keep=_read_indices(entry, "keep"),
        core=_read_indices(entry, "core"),
    )


def _read_indices(entry: Mapping[str, Any], key: str) -> np.ndarray:
    values = _typed(entry, key, list)
    if not all(type(value) is int for value in values):
        raise TypeError(f"{key} of {entry['name']} holds something that is no integer")
    return np.array(values, dtype=np.int64)


def _typed(document: Mapping[str, Any], key: str, *types: type) -> Any:
    """``document[key]``; KeyError where it is missing, TypeError where its type is none of ``types``."""
    value = document[key]
    if type(value) not in types:  # exactly: JSON's true is no integer
        raise TypeError(f"{key} is {value!r:.60}")
    return value


def make_plan(
    profile: Profile,
    score: str = "scar_prot",
    sparsity: float = 0.5,
    protect: Literal["core"] | None = None,
    multiple_of: int | Literal["auto"] = "auto",
    allocation: str = "uniform",
    cap: float = 0.7,
    seed: int = 0,
) -> Plan:
    """Choose the channels that stay: those with the largest scores.

    Args:
        profile: of the weights that will be cut.
        score: name of the ranking; the SCAR scores always protect the core.
        sparsity: share of the channels that goes, in [0, 1).
        protect: ``"core"`` keeps the core whatever its score.
        multiple_of: each width is rounded up to a multiple of it. ``"auto"`` is the largest power of two up
            to 128 that keeps every width within 1% of its m, and 1 where sites compete.
        allocation: ``uniform``: one fraction for all sites. ``global``: one pool of scores divided by their
            site's sum; ``global_raw``: of the scores as they are; ``global_standard``: of how many standard
            deviations they lie above their site's mean. ``linear:S``: the fraction rises with depth from
            (1 - S) f to (1 + S) f, or falls where S is below 0; ``middle``: the first tenth of the sites and
            the last one stay whole. A schedule removes as many channels as ``uniform``. Only ``uniform``
            gives one width, which is what stock checkpoints hold.
        cap: largest share of one site that a pool or a schedule may remove.
        seed: for scores that draw.

    Raises:
        PlanError: an option that cannot be, or a sparsity that does not leave the core.
        ArgumentError: no such score.
        ArtifactError: the profile lacks what the score needs.
    """
    _check_options(sparsity, protect, multiple_of, allocation, cap)
    chosen = find_score(score)
    values = compute_score(profile, chosen.name, seed=seed)
    cores = profile_core(profile)
    protected = protect == "core" or chosen.keeps_core
    ranked = {name: Ranked(values[name], cores[name], protected) for name in values}
    if multiple_of == "auto":
        widths = [site.width for site in profile.sites]
        multiple_of = auto_multiple(widths, sparsity) if allocation == "uniform" else 1
    if allocation == "uniform":
        keep = uniform(ranked, sparsity, multiple_of)
    else:
        allocate = pooled if allocation in POOLS else scheduled
        keep = allocate(ranked, sparsity, multiple_of, cap, allocation)
    return Plan(
        sites=tuple(
            PlannedSite(s.name, s.layer, s.width, keep[s.name], cores[s.name]) for s in profile.sites
        ),
        score=chosen.name,
        sparsity=float(sparsity),
        fingerprint=profile.fingerprint,
        protect="core" if protected else None,
        multiple_of=multiple_of,
        allocation=allocation,
        cap=None if allocation == "uniform" else float(cap),
        seed=seed,
        provenance=provenance(
            seed=seed, text=profile.header.get("text"), profile=profile.header.get("provenance")
        ),
    )


def _check_options(
    sparsity: float, protect: str | None, multiple_of: int | str, allocation: str, cap: float | None
) -> None:
    if not _is_number(sparsity) or not 0 <= sparsity < 1:
        raise PlanError(f"Sparsity must be in [0, 1), not {sparsity!r}.")
    if protect not in (None, "core"):
        raise PlanError(f'protect must be None or "core", not {protect!r}.')
    if not is_allocation(allocation):
        raise PlanError(f"allocation must be one of {', '.join(ALLOCATIONS)}, not {allocation!r}.")
    if cap is not None and not (_is_number(cap) and 0 < cap <= 1):
        raise PlanError(f"cap must be in (0, 1], not {cap!r}.")
    whole = isinstance(multiple_of, int) and not isinstance(multiple_of, bool) and multiple_of >= 1
    if multiple_of != "auto" and not whole:
        raise PlanError(f'multiple_of must be "auto" or an integer of at least 1, not {multiple_of!r}.')


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
