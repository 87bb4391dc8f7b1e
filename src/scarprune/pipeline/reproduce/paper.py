"""The steps under the paper's protocol: measure, compare, prune."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scarprune.artifacts import read_tensors, write_json, write_tensors
from scarprune.findings.concentration import concentration
from scarprune.findings.explanations import explanations
from scarprune.paper.differences import of_epsilon, of_texts
from scarprune.paper.protocol import KEEP_CORE, measure_as_published
from scarprune.paper.pruning import Ranking, without_core
from scarprune.pipeline.reproduce.programme import Programme
from scarprune.profile.sums import Profile, load_profile
from scarprune.runtime.provenance import provenance

PROFILE, SCORES, PAPER = "paper-profile.safetensors", "paper-scores.safetensors", "paper.json"


def measure_paper(
    folder: Path, programme: Programme, model: Any, tokenizer: Any, ours: Profile | None
) -> None:
    """Write the profile and the scores of the paper's protocol, and what its peculiarities change."""
    measured = measure_as_published(
        model,
        tokenizer,
        programme.text,
        programme.paper,
        field=programme.reading.field,
        signed=programme.preset.signed,
        seed=programme.reading.seed,
        hessians=programme.amounts.sparsegpt,
    )
    epsilon = of_epsilon(measured)
    document = {
        "provenance": provenance(seed=programme.reading.seed, fingerprint=measured.profile.fingerprint),
        "model": programme.model,
        "quantities": quantities(
            concentration(measured.profile), explanations(measured.profile), epsilon["pooled_ratio_with"]
        ),
        "differences": {
            "epsilon": epsilon,
            "texts": of_texts(model, measured, ours),
        },
        "scores": list(measured.scores),
        "missing": measured.missing,
    }
    tensors = {
        f"{name}/{site}": array for name, values in measured.scores.items() for site, array in values.items()
    }
    measured.profile.save(folder / PROFILE, overwrite=True)
    write_tensors(
        folder / SCORES,
        "paper-scores",
        tensors,
        {"fingerprint": measured.profile.fingerprint},
        overwrite=True,
    )
    write_json(folder / PAPER, "paper-protocol", document, overwrite=True)


def paper_rankings(folder: Path) -> tuple[Profile, list[Ranking]]:
    """The profile that ``measure_paper`` wrote, and a ranking for each of its scores."""
    profile = load_profile(folder / PROFILE)
    _, tensors = read_tensors(folder / SCORES, "paper-scores")
    found: dict[str, dict[str, Any]] = {}
    for key, array in tensors.items():
        name, _, site = key.partition("/")
        found.setdefault(name, {})[site] = array
    rankings = [Ranking(name, values, name in KEEP_CORE) for name, values in sorted(found.items())]
    return profile, [*rankings, without_core(profile)]


def quantities(
    shares: Mapping[str, Any], others: Mapping[str, Any], halo_ratio: float | None
) -> dict[str, float | None]:
    """Numbers of the table, by its rows' names: of sections ``concentration`` and ``explanations``."""
    summary = next(iter(shares["labels"].values()))["summary"]
    activation = others["scores"]["activation_power"]["summary"]
    return {
        "core share, median": summary["core_share"]["median"],
        "core share, smallest": summary["core_share"]["min"],
        "core share, largest": summary["core_share"]["max"],
        "largest over mean, median": summary["max_over_mean"]["median"],
        "Jaccard of core and activation outliers, median": activation["jaccard"]["median"],
        "rank correlation with activation power, median": activation["spearman"]["median"],
        "redundancy of the halo over the rest": halo_ratio,
    }
