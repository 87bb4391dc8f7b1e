"""Whether profiles of one model agree: other text, seed, length or labels (``method`` 3)."""

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import numpy as np

from scarprune.errors import ArtifactError
from scarprune.findings.resample import chance, core_size, group_sums, label_of, spread_json
from scarprune.findings.stability import half_cores
from scarprune.profile.sums import Profile
from scarprune.stats.concentration import share
from scarprune.stats.overlap import jaccard
from scarprune.stats.rank import corrected, spearman, stepped_up
from scarprune.stats.select import largest

_FACTS = {"text": "source", "length": "length", "seed": "seed", "protocol": "protocol", "bos": "bos"}


def agreement(profiles: Sequence[Profile]) -> dict[str, Any]:
    """Every pair of ``profiles``, numbered as given: overlap of cores, correlation of ranks, mass caught.

    The first of a pair says how large a core is. ``spearman_corrected`` is divided by the root of both
    reliabilities, each stepped up from halves to the whole text; it may exceed 1 by chance.

    Raises:
        ArtifactError: profiles of different models.
    """
    for other in profiles[1:]:
        if other.fingerprint != profiles[0].fingerprint or other.sites != profiles[0].sites:
            raise ArtifactError(
                "Profiles of different models cannot be compared: "
                f"{profiles[0].fingerprint} and {other.fingerprint}.",
                hint="Name profiles that were made with the same weights.",
            )
    pairs = combinations(range(len(profiles)), 2)
    return {"pairs": [{"a": i, "b": j, **_pair(profiles[i], profiles[j])} for i, j in pairs]}


def _pair(a: Profile, b: Profile) -> dict[str, Any]:
    sites = [_site(a, b, site.name, core_size(a, site.width)) for site in a.sites]
    keys = [key for key in sites[0] if key != "name"]
    summary: dict[str, Any] = {key: spread_json(entry[key] for entry in sites) for key in keys}
    likely = chance([site.width for site in a.sites], [core_size(a, site.width) for site in a.sites])
    for key in ("jaccard", "split_half_a", "split_half_b", "cross_halves"):
        summary[key]["chance"] = likely
    missing = {
        key: "no site has loss in both profiles, or in both halves of each"
        for key in keys
        if summary[key]["median"] is None
    }
    return {"differ": differ(a, b), **summary, "sites": sites, "missing": missing}


def _site(a: Profile, b: Profile, name: str, k: int) -> dict[str, Any]:
    kinds = label_of(a), label_of(b)
    one, other = (
        profile.total("sum_q2", labels=kind)[name] for profile, kind in zip((a, b), kinds, strict=True)
    )
    both = bool(one.max() > 0 and other.max() > 0)
    core_a, core_b = largest(one, k), largest(other, k)
    halves_a, halves_b = (
        half_cores(group_sums(profile, name, kind), k) for profile, kind in zip((a, b), kinds, strict=True)
    )
    rank = spearman(one, other) if both else None
    reliabilities = (stepped_up(spearman(*halves[0])) if halves else None for halves in (halves_a, halves_b))
    crossed = [jaccard(x, y) for x, y in product(halves_a[1], halves_b[1])] if halves_a and halves_b else None
    return {
        "name": name,
        "jaccard": jaccard(core_a, core_b) if both else None,
        "spearman": rank,
        "spearman_corrected": corrected(rank, *reliabilities),
        "mass_caught": _caught(other, core_a, core_b) if both else None,
        "mass_caught_back": _caught(one, core_b, core_a) if both else None,
        "split_half_a": jaccard(*halves_a[1]) if halves_a else None,
        "split_half_b": jaccard(*halves_b[1]) if halves_b else None,
        "cross_halves": float(np.mean(crossed)) if crossed else None,
    }


def _caught(q2: np.ndarray, theirs: np.ndarray, own: np.ndarray) -> float | None:
    """Mass of ``q2`` in the other profile's core over that in its own."""
    caught, most = share(q2, theirs), share(q2, own)
    return caught / most if caught is not None and most else None


def differ(a: Profile, b: Profile) -> list[str]:
    """What is recorded otherwise: text, length, seed, protocol, bos, amount of text, labels, rho."""
    words = [word for word, key in _FACTS.items() if _recorded(a, key) != _recorded(b, key)]
    if not words and _recorded(a, "fingerprint") != _recorded(b, "fingerprint"):
        words.append("text")
    if a.targets() != b.targets():
        words.append("amount of text")
    if label_of(a) != label_of(b):
        words.append("labels")
    if a.header.get("rho") != b.header.get("rho"):
        words.append("rho")
    return words


def _recorded(profile: Profile, key: str) -> list[Any]:
    return [entry.get(key) for entry in profile.header["text"]]
