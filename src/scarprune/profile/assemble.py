"""From totals to the profile that is kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from scarprune.models.fingerprint import fingerprint_model
from scarprune.models.forward import device_of
from scarprune.models.site import Site
from scarprune.models.streamed import present
from scarprune.profile.redundancy import CPU, correlations, redundancy
from scarprune.profile.sums import GROUPS, Profile, stored
from scarprune.profile.weights import connection, wanda_terms, weight_norms
from scarprune.runtime.provenance import provenance
from scarprune.text.blocks import Blocks


def assemble(
    model: Any,
    sites: Sequence[Site],
    blocks: Blocks,
    groups: np.ndarray,
    totals: Mapping[str, np.ndarray],
    core: Mapping[str, np.ndarray],
    cross: Mapping[str, np.ndarray] | None,
    kinds: Sequence[str],
    rho: float,
    seed: int,
) -> Profile:
    """The profile: totals in the dtype of files, what the weights add, and pass 2 reduced to channels."""
    tensors = {key: stored(key.rsplit("/", 1)[1], array) for key, array in totals.items()}
    device = device_of(model)
    exact = device if device.type == "cuda" else CPU  # not every other device has float64
    for index, site in enumerate(sites):
        kept: dict[str, np.ndarray] = {}
        if cross is not None:
            kept |= _reduced(site, blocks, totals, core, cross, kinds, exact)
        with present(model, index):
            kept |= weight_norms(model, site)
            kept |= wanda_terms(model, site, totals[f"{site.name}/sum_x2"])
            kept |= connection(model, site, core[site.name])
        tensors |= {f"{site.name}/{name}": array for name, array in kept.items()}
    header = {
        "fingerprint": fingerprint_model(model),
        "labels": list(kinds),
        "rho": rho,
        "counts": {
            "targets": positions_by_band(blocks.lengths - 1),
            "positions": positions_by_band(blocks.lengths),
            "blocks": len(blocks),
        },
        "groups": np.bincount(groups, weights=blocks.lengths - 1, minlength=GROUPS).astype(int).tolist(),
        "text": [_text(blocks)],
        "provenance": provenance(
            model=getattr(model.config, "_name_or_path", "") or type(model).__name__,
            device=str(device),
            dtype=str(model.dtype).removeprefix("torch."),
            seed=seed,
        ),
    }
    return Profile(sites=[_bare(site) for site in sites], header=header, tensors=tensors)


def positions_by_band(lengths: np.ndarray) -> list[int]:
    """How many of the first ``lengths[i]`` positions of each block lie in bands {0}, {1, 2, 3}, {4 ..}."""
    counts = (np.minimum(lengths, 1), np.clip(lengths - 1, 0, 3), np.maximum(lengths - 4, 0))
    return [int(count.sum()) for count in counts]


def _reduced(
    site: Site,
    blocks: Blocks,
    totals: Mapping[str, np.ndarray],
    core: Mapping[str, np.ndarray],
    cross: Mapping[str, np.ndarray],
    kinds: Sequence[str],
    device: torch.device,
) -> dict[str, np.ndarray]:
    prefix = f"{site.name}/" if "data" in kinds else f"{site.name}/model/"
    q, q2 = (totals[prefix + name].sum(0) for name in ("sum_q", "sum_q2"))
    members = core[site.name]
    kept = redundancy(correlations(cross[site.name], q, q2, members, blocks.targets, device), members)
    return {f"red/{name}": a if name == "core" else a.astype(np.float32) for name, a in kept.items()}


def _text(blocks: Blocks) -> dict[str, Any]:
    return {
        "source": blocks.source,
        "protocol": blocks.protocol,
        "blocks": len(blocks),
        "length": int(blocks.lengths.max()),
        "seed": blocks.seed,
        "bos": blocks.bos,
        "targets": blocks.targets,
        "fingerprint": blocks.fingerprint,
    }


def _bare(site: Site) -> Site:
    """The site as files know it: a profile made here equals one that was loaded."""
    return Site(**site.as_json())
