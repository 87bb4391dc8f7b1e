"""Whether the next network reads where the core writes (``method`` 4, read side)."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from scarprune.models.site import Site
from scarprune.models.weights import matrix
from scarprune.profile.sums import Profile
from scarprune.profile.weights import connection
from scarprune.scores.core import profile_core
from scarprune.stats.concentration import share
from scarprune.stats.overlap import expected_jaccard, jaccard
from scarprune.stats.rank import product, unit_ranks
from scarprune.stats.select import floor_share, largest, outside
from scarprune.stats.summary import spread

SHARE = 0.10  # of a site's channels that make its read halo, as in arXiv 2604.23475
_DRAWS = 20
_LAST = "the last site has none after it"


def read_side(
    model: Any, sites: Sequence[Site], profile: Profile, *, seed: int = 0, draws: int = _DRAWS
) -> dict[str, Any]:
    """Section ``read_side``: for each site but the last, how the next one's channels read on its support.

    ReadConn_j = (norm1 of gate row j on S + norm1 of up row j on S) / (norm1 of both rows). The read halo is
    the tenth of the next site's channels with the largest ReadConn. ``random_*`` is the range over the
    supports of ``draws`` random cores of the same size from outside the core. Attention between the two
    networks, and the gain of the norm before the next one, are left out, as in the paper.
    """
    core = profile_core(profile)
    labels = "data" if "data" in profile.labels else "model"
    q2 = profile.total("sum_q2", labels=labels)
    entries: list[dict[str, Any]] = []
    for index, (site, following) in enumerate(itertools.pairwise(sites)):
        support = profile.get(site.name, "support") if profile.has("support") else None
        if support is None:
            support = connection(model, site, core[site.name])["support"]
        rows = _absolute_rows(model, following)
        found = _of_support(read_conn(rows, support), q2[following.name], core[following.name])
        rest = outside(core[site.name], site.width)
        k, rng = len(core[site.name]), np.random.default_rng([seed, index])
        shares = []
        for _ in range(draws if len(rest) >= k else 0):
            other = connection(model, site, np.sort(rng.choice(rest, k, replace=False)), len(support))
            conn = read_conn(rows, other["support"])
            shares.append(share(q2[following.name], largest(conn, _halo_size(len(conn)))))
        random = spread(shares)
        entries.append(
            {
                "name": site.name,
                "next": following.name,
                **found,
                "chance": len(support) / site.hidden,
                "random_median": random.median,
                "random_min": random.min,
                "random_max": random.max,
            }
        )
    keys = ("lp_share_of_read_halo", "random_median", "jaccard_with_core", "chance_jaccard", "spearman_lp")
    return {
        "share": SHARE,
        "draws": draws,
        "sites": entries,
        "summary": {key: spread(entry[key] for entry in entries).as_json() for key in keys},
        "missing": {sites[-1].name: _LAST},
    }


def read_conn(absolute: torch.Tensor, support: np.ndarray) -> np.ndarray:
    """ReadConn [m] of rows whose absolute values, gate and up added, are ``absolute`` [m, d]; 0 for zeros."""
    on = absolute.index_select(1, torch.from_numpy(support).to(absolute.device)).sum(1)
    whole = absolute.sum(1)
    conn: np.ndarray = torch.where(whole > 0, on / whole, torch.zeros_like(on)).cpu().numpy()
    return conn.astype(np.float64)


def _absolute_rows(model: Any, site: Site) -> torch.Tensor:
    parts = [matrix(model, reader).detach().float().abs() for reader in site.readers]
    return torch.stack(parts).sum(0)


def _halo_size(width: int) -> int:
    return max(1, floor_share(SHARE, width))


def _of_support(conn: np.ndarray, q2: np.ndarray, core: np.ndarray) -> dict[str, float | None]:
    readers = largest(conn, _halo_size(len(conn)))
    others: Mapping[str, np.ndarray] = {"core": core, "rest": outside(core, len(conn))}
    return {
        **{f"read_conn_median_{name}": _median(conn[channels]) for name, channels in others.items()},
        "lp_share_of_read_halo": share(q2, readers),
        "jaccard_with_core": jaccard(readers, core),
        "chance_jaccard": expected_jaccard(len(conn), len(readers), len(core)),
        "spearman_lp": product(unit_ranks(conn), unit_ranks(q2)),
    }


def _median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None
