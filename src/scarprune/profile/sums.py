"""The profile: counts and sums per channel, from which every score follows without a model."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scarprune.artifacts import read_tensors, write_tensors
from scarprune.errors import ArgumentError, ArtifactError
from scarprune.models.site import Site
from scarprune.profile.header import check_header, read_sites

BANDS = ((0, 1), (1, 4), (4, None))  # positions {0}, {1, 2, 3}, {4 ..}
ALL_BANDS = (0, 1, 2)
GROUPS = 8
ACTIVATION_GROUPS = 4

# Sums with a leading axis of bands; those of LABELLED depend on the loss and so on its labels.
BANDED = ("sum_u", "sum_u2")
BANDED_LABELLED = ("sum_s", "sum_s2", "sum_q", "sum_abs_q", "sum_q2", "sum_q4", "sum_us2")
BLOCK_LABELLED = ("block_G2", "block_GS", "block_S2", "block_q2_squared")
GROUP_LABELLED = ("groups_q2", "groups_G")
GROUP = ("groups_u2",)
LABELLED = frozenset(BANDED_LABELLED + BLOCK_LABELLED + GROUP_LABELLED)
# Stored as float64: signed sums that cancel, and what shares and scores are read from.
DOUBLE = frozenset({"sum_q", "sum_q2", "sum_u2"})
# Pure functions of the weights: they survive "+"; everything else that is not a sum does not.
WEIGHT_NORMS = ("gate_norm2", "up_norm2", "down_norm2", "down_norm1")

# Made from weights, core and text together: [m] each, dropped by "+", as the indices are.
OF_CORE_AND_INPUT = ("wanda_gate", "wanda_up", "conn", "red/top5", "red/top5_unsigned", "red/mean")
INDICES = ("support", "red/core")
# Measured only where asked for, since each costs a pass of its own: [m] each.
EXTRAS = {
    "entropy": ("entropy/sum_abs_q",),
    "gradient": ("gradient/sum_gate", "gradient/sum_up", "gradient/block_squares", "gradient/magnitude"),
    "hessian": ("hessian/readers", "hessian/down"),
}
SIGNED = frozenset(
    {"sum_u", "sum_s", "sum_q", "sum_us2", "block_GS", "groups_G", "gradient/sum_gate", "gradient/sum_up"}
)

_KIND = "profile"


@dataclass
class Profile:
    """Sums over tokens per site and channel, and what they were measured on.

    Attributes:
        sites: in layer order.
        header: the JSON of the file: ``provenance``, ``fingerprint`` (weights), ``text`` (list of what
            was read), ``labels``, ``counts`` (``targets`` and ``positions`` per band, ``blocks``),
            ``groups`` (targets per group of blocks), ``rho`` (the core that pass 2 and Conn belong to),
            ``loss`` (``mean`` where each block's loss was a mean; else absent: it was a sum).
        tensors: ``{site}/{name}``; with model labels ``{site}/model/{name}``; pass 2 ``{site}/red/...``;
            of an extra pass ``{site}/{extra}/...``.
    """

    sites: list[Site]
    header: dict[str, Any]
    tensors: dict[str, np.ndarray]

    # -- reading -----------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """Identity of the weights that were measured."""
        return str(self.header["fingerprint"])

    @property
    def digest(self) -> str:
        """SHA-256 over names and values of all tensors: equal for equal sums."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors.items()):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(tensor).tobytes())
        return digest.hexdigest()

    @property
    def labels(self) -> tuple[str, ...]:
        """Which labels the gradients were taken with: ``data``, ``model`` or both."""
        return tuple(self.header["labels"])

    @property
    def extras(self) -> tuple[str, ...]:
        """The extra passes that were made."""
        return tuple(extra for extra, names in EXTRAS.items() if self.has(names[-1]))

    def targets(self, bands: Sequence[int] = ALL_BANDS) -> int:
        """N: predicted tokens at the positions of ``bands``."""
        return sum(int(self.header["counts"]["targets"][band]) for band in check_bands(bands))

    def positions(self, bands: Sequence[int] = ALL_BANDS) -> int:
        """Tokens read at the positions of ``bands``, with or without a target."""
        return sum(int(self.header["counts"]["positions"][band]) for band in check_bands(bands))

    @property
    def blocks(self) -> int:
        """Blocks read."""
        return int(self.header["counts"]["blocks"])

    @property
    def group_targets(self) -> np.ndarray:
        """int64 [8]: predicted tokens in each group of blocks; 0 where a group is empty."""
        return np.asarray(self.header["groups"], dtype=np.int64)

    def has(self, name: str, labels: str = "data") -> bool:
        """Whether every site holds ``name``."""
        return all(self._key(site.name, name, labels) in self.tensors for site in self.sites)

    def get(self, site: str, name: str, labels: str = "data") -> np.ndarray:
        """The stored array of one site, as float64 (integers stay integers).

        Raises:
            ArtifactError: the profile does not hold it; the message says how to get it.
        """
        array = self._find(site, name, labels)
        return array.astype(np.float64) if array.dtype.kind == "f" else array

    def total(
        self, name: str, bands: Sequence[int] = ALL_BANDS, labels: str = "data"
    ) -> dict[str, np.ndarray]:
        """One statistic summed over ``bands`` of positions: site name -> float64 [m], in layer order.

        A statistic without bands is returned as it is; ``bands`` must then be all three.
        """
        chosen = check_bands(bands)
        banded = name in BANDED or name in BANDED_LABELLED
        if not banded and chosen != list(ALL_BANDS):
            raise ArgumentError(f"{name} is kept over all positions; bands={tuple(bands)} cannot be chosen.")
        if not banded:
            return {site.name: self.get(site.name, name, labels) for site in self.sites}
        first, *others = chosen
        totals = {}
        for site in self.sites:
            bands_of_site = self._find(site.name, name, labels)
            total = bands_of_site[first].astype(np.float64)
            for band in others:
                total += bands_of_site[band]
            totals[site.name] = total
        return totals

    def _find(self, site: str, name: str, labels: str) -> np.ndarray:
        key = self._key(site, name, labels)
        try:
            return self.tensors[key]
        except KeyError:
            raise ArtifactError(
                f"This profile does not hold {key}.", hint=self._how_to_complete(name, labels)
            ) from None

    def _key(self, site: str, name: str, labels: str) -> str:
        return f"{site}/model/{name}" if labels == "model" and name in LABELLED else f"{site}/{name}"

    def _how_to_complete(self, name: str, labels: str) -> str:
        if name in LABELLED:
            return f'Profile again with labels="{labels}" or "both" (--labels {labels}).'
        extra = extra_of(name)
        if self.header.get("merged"):
            option = f" with --extra {extra}" if extra else ""
            return (
                "Adding profiles drops it, since it depends on all text at once: "
                f"profile the joined text{option}."
            )
        if extra:
            return f'Profile again with extras=("{extra}",) (--extra {extra}); it costs a pass of its own.'
        if name.startswith("red/"):
            return "Profile again with redundancy=True (without --no-redundancy)."
        return "Profile the model again with this version of scarprune."

    # -- adding ------------------------------------------------------------------------------------

    def __add__(self, other: "Profile") -> "Profile":
        """The profile of both texts together: pass 1 adds up, weight norms stay, the rest is dropped.

        Raises:
            ArtifactError: other weights, sites, labels or kinds of blocks.
        """
        if not isinstance(other, Profile):
            return NotImplemented
        if self.fingerprint != other.fingerprint or self.sites != other.sites:
            raise ArtifactError(
                f"Profiles of different weights cannot be added: {self.fingerprint} and {other.fingerprint}."
            )
        if self.labels != other.labels:
            raise ArtifactError(
                f"Profiles with different labels cannot be added: {self.labels} and {other.labels}."
            )
        if self.header.get("loss") != other.header.get("loss"):
            raise ArtifactError("Profiles of summed and of mean losses cannot be added.")
        header = dict(self.header)
        header["counts"] = {
            "targets": _add_lists(self.header["counts"]["targets"], other.header["counts"]["targets"]),
            "positions": _add_lists(self.header["counts"]["positions"], other.header["counts"]["positions"]),
            "blocks": self.blocks + other.blocks,
        }
        header["groups"] = (self.group_targets + other.group_targets).tolist()
        header["text"] = [*self.header["text"], *other.header["text"]]
        header["merged"] = True
        tensors: dict[str, np.ndarray] = {}
        for key, array in self.tensors.items():
            name = key.rsplit("/", 1)[1]
            if name in WEIGHT_NORMS:
                tensors[key] = array
            elif key in other.tensors and self._adds_up(key):
                tensors[key] = array + other.tensors[key]
        return Profile(sites=self.sites, header=header, tensors=tensors)

    def _adds_up(self, key: str) -> bool:
        name = key.rsplit("/", 1)[1]
        return name.startswith(("sum_", "block_", "groups_"))

    # -- files -------------------------------------------------------------------------------------

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write one safetensors file, whole or not at all (ArtifactError where ``path`` exists)."""
        header = {**self.header, "sites": [site.as_json() for site in self.sites]}
        write_tensors(Path(path), _KIND, self.tensors, header, overwrite=overwrite)


def load_profile(path: str | Path) -> Profile:
    """Read a profile.

    Raises:
        ArtifactError: missing, damaged, of another kind, newer, or with tensors that do not fit its header.
    """
    path = Path(path)
    header, tensors = read_tensors(path, _KIND)
    try:
        profile = Profile(sites=read_sites(header.pop("sites")), header=header, tensors=tensors)
        check_header(header, bands=len(BANDS), groups=GROUPS)
        _check_tensors(profile)
    except KeyError as error:
        raise ArtifactError(f"{path} is damaged: it has no {error}.") from error
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged: {error}.") from error
    return profile


def _check_tensors(profile: Profile) -> None:
    """Raise ValueError or KeyError where a tensor is missing, or does not fit its site."""
    sites = {site.name: site for site in profile.sites}
    for name in sites:
        for labels in profile.labels:
            if (key := profile._key(name, "sum_q2", labels)) not in profile.tensors:
                raise KeyError(key)
    for key, array in profile.tensors.items():
        site_name, _, name = key.partition("/")
        if site_name not in sites:
            raise ValueError(f"{key} belongs to no site")
        _check_tensor(key, name.removeprefix("model/"), array, sites[site_name])


def _check_tensor(key: str, name: str, array: np.ndarray, site: Site) -> None:
    if name in INDICES:
        count = site.hidden if name == "support" else site.width
        if array.ndim != 1 or array.dtype != np.int64 or not _ascend(array, count):
            raise ValueError(f"{key} is no list of ascending indices below {count}")
        return
    shapes = expected_shapes()
    if name in shapes or name.startswith("block_"):
        if array.dtype.kind != "f" or array.shape != (*shapes.get(name, ()), site.width):
            raise ValueError(f"{key} is {array.dtype} {array.shape}")
        if name not in SIGNED and array.min() < 0:
            raise ValueError(f"{key} holds {array.min()}, which no sum of its kind can be")


def extra_of(name: str) -> str | None:
    """The extra pass that measures the statistic ``name``; None for what every profile holds."""
    first = name.partition("/")[0]
    return first if first in EXTRAS else None


def _ascend(indices: np.ndarray, count: int) -> bool:
    inside = len(indices) > 0 and indices[0] >= 0 and indices[-1] < count
    return bool(inside and (np.diff(indices) > 0).all())


def expected_shapes() -> dict[str, tuple[int, ...]]:
    """Leading dimensions of each sum, before the axis of channels."""
    shapes: dict[str, tuple[int, ...]] = {}
    return (
        shapes
        | dict.fromkeys(BANDED + BANDED_LABELLED, (len(BANDS),))
        | dict.fromkeys(BLOCK_LABELLED + WEIGHT_NORMS + OF_CORE_AND_INPUT, ())
        | dict.fromkeys(GROUP_LABELLED, (GROUPS,))
        | dict.fromkeys(GROUP, (ACTIVATION_GROUPS,))
        | dict.fromkeys((name for names in EXTRAS.values() for name in names), ())
    )


def check_bands(bands: Iterable[int]) -> list[int]:
    """``bands`` as a sorted list without repeats; ArgumentError where one is not 0, 1 or 2."""
    chosen = sorted(set(bands))
    if not chosen or not set(chosen) <= set(ALL_BANDS):
        raise ArgumentError(f"bands must be some of 0, 1 and 2, not {tuple(bands)}.")
    return chosen


def _add_lists(a: Sequence[int], b: Sequence[int]) -> list[int]:
    return [x + y for x, y in zip(a, b, strict=True)]


def stored(name: str, array: np.ndarray) -> np.ndarray:
    """``array`` in the dtype that files keep it in: float64 where float32's error could be seen."""
    return array.astype(np.float64 if name in DOUBLE else np.float32)
