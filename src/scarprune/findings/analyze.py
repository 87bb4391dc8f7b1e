"""What the paper claims of a model's channels, measured on this one: what ``scarprune analyze`` writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scarprune.errors import ArtifactError
from scarprune.findings.agreement import agreement
from scarprune.findings.channels import channels
from scarprune.findings.concentration import concentration
from scarprune.findings.explanations import explanations
from scarprune.findings.halo import halo_of_profile
from scarprune.findings.published import PUBLISHED, SOURCE
from scarprune.findings.sensitivity import sensitivity
from scarprune.findings.stability import stability
from scarprune.findings.statements import statements
from scarprune.profile.sums import Profile
from scarprune.runtime.provenance import provenance
from scarprune.scores.core import profile_core
from scarprune.scores.halo import halo

if TYPE_CHECKING:
    from scarprune.text.blocks import Blocks

_NEEDS_MODEL = "needs the weights and the text: analyze with the model (--model MODEL)"


def analyze(
    profile: Profile,
    *others: Profile,
    model: Any | None = None,
    tokenizer: Any | None = None,
    blocks: "Blocks | None" = None,
    paths: Sequence[str] = (),
    seed: int = 0,
    flips: int = 200,
    random_cores: int = 20,
    batch: Any = "auto",
    resume: Path | None = None,
) -> dict[str, Any]:
    """The findings of ``profile``: JSON without NaN; what cannot be computed is None, with its reason.

    Args:
        profile: what the findings are of.
        others: more profiles of the same model (other text, seed, length, labels), to agree with or not.
        model: for what needs weights: the controls of the halo, write support, tokens that carry a channel.
        tokenizer: to show those tokens in their text.
        blocks: the text for ``model``, most naturally the one ``profile`` was measured on.
        paths: where the profiles lie, for the record.
        seed: of sign flips, samples and random cores.
        flips: sign flips of the null.
        random_cores: how many random cores the core is compared with.
        batch: blocks at once, for the pass over ``blocks``.
        resume: file that keeps the state of that pass until it has ended.

    Raises:
        ArtifactError: profiles of different models, or of another than ``model``.
    """
    shares, others_say = concentration(profile), explanations(profile)
    stable = stability(profile)
    found: dict[str, Any] = {
        "provenance": provenance(seed=seed),
        "model": str(profile.header["provenance"].get("model", "")),
        "profiles": [_facts(item, path) for item, path in _with_paths((profile, *others), paths)],
        "sites": _sites(profile, shares),
        "concentration": shares,
        "explanations": others_say,
        "stability": stable,
        "halo": None,
        "odd_tokens": None,
        "agreement": agreement((profile, *others)) if others else None,
        "channels": channels(profile, seed=seed),
        "paper": {"source": SOURCE, "models": PUBLISHED},
        "missing": {},
    }
    if not others:
        found["missing"]["agreement"] = "needs two profiles of the model or more"
    if model is None or blocks is None:
        found["halo"] = (halo_of_profile(profile) or {}) | {"sensitivity": sensitivity(profile)}
        found["missing"]["odd_tokens"] = _NEEDS_MODEL
    else:
        found |= _with_model(model, tokenizer, blocks, profile, seed, flips, random_cores, batch, resume)
    found["summary"] = _summary(found)
    found["summary"]["statements"] = statements(found)
    return found


def _with_model(
    model: Any,
    tokenizer: Any | None,
    blocks: "Blocks",
    profile: Profile,
    seed: int,
    flips: int,
    random_cores: int,
    batch: Any,
    resume: Path | None,
) -> dict[str, Any]:
    from scarprune.findings.halo_controls import measure_halo  # these need torch
    from scarprune.findings.odd_tokens import odd_tokens
    from scarprune.findings.read_side import read_side
    from scarprune.findings.sensitivity_of_core import sensitivity_of_core
    from scarprune.models.find import find_sites
    from scarprune.models.fingerprint import fingerprint_model

    if (fingerprint := fingerprint_model(model)) != profile.fingerprint:
        raise ArtifactError(
            f"The profile is of other weights ({profile.fingerprint[:12]}) than the model's "
            f"({fingerprint[:12]}).",
            hint="Name the model that was profiled.",
        )
    measured = measure_halo(
        model, profile, blocks, seed=seed, flips=flips, random_cores=random_cores, batch=batch, resume=resume
    )
    sites = find_sites(model)
    measured.halo["read_side"] = read_side(model, sites, profile, seed=seed)
    if measured.halo["sensitivity"]:
        measured.halo["sensitivity"] += sensitivity_of_core(model, sites, profile, blocks)
    return {"halo": measured.halo, "odd_tokens": odd_tokens(profile, measured, tokenizer)}


def _sites(profile: Profile, shares: Mapping[str, Any]) -> list[dict[str, Any]]:
    cores = profile_core(profile)
    kind = next(iter(shares["labels"].values()))
    conn = profile.total("conn") if profile.has("conn") else {}
    return [
        {
            **site.as_json(),
            "core_share": entry["core_share"]["value"],
            "core": cores[site.name].tolist(),
            "halo": halo(conn[site.name], cores[site.name]).tolist() if conn else None,
        }
        for site, entry in zip(profile.sites, kind["sites"], strict=True)
    ]


def _summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """The few numbers a reader asks for first."""
    share = next(iter(found["concentration"]["labels"].values()))["summary"]
    activation = found["explanations"]["scores"].get("activation_power")
    nothing = {"median": None, "min": None, "max": None}
    return {
        "core_share": share["core_share"],
        "core_share_cross_fitted": share["cross_fitted"],
        "jaccard_activation": activation["summary"]["jaccard"] if activation else {**nothing, "chance": None},
        "spearman_activation": activation["summary"]["spearman"] if activation else nothing,
        "split_half_jaccard": (found["stability"].get("split_half") or {})
        .get("contiguous", {})
        .get("jaccard", {**nothing, "chance": None}),
    }


def _with_paths(profiles: Sequence[Profile], paths: Sequence[str]) -> list[tuple[Profile, str | None]]:
    known = [*paths, *[None] * (len(profiles) - len(paths))]
    return list(zip(profiles, known, strict=True))


def _facts(profile: Profile, path: str | None) -> dict[str, Any]:
    return {
        "path": path,
        "fingerprint": profile.fingerprint,
        "labels": list(profile.labels),
        "blocks": profile.blocks,
        "targets": profile.targets(),
        "rho": profile.header.get("rho"),
        "text": profile.header["text"],
        "provenance": profile.header["provenance"],
    }
