"""All probes of one model on one text, and the verdict: what ``scarprune validate`` writes."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scarprune.errors import ArgumentError, ArtifactError
from scarprune.evaluate.ablate import Ablator
from scarprune.evaluate.removal import Removal
from scarprune.findings.probes.effect import Effects, effects
from scarprune.findings.probes.first_order import Gains, block_gains, gain_of
from scarprune.findings.probes.plans import forced_hit_rates, hit_rates, random_cores
from scarprune.findings.probes.sample import Pair, Sample, draw, pairs
from scarprune.findings.probes.sets import measure_sets, number, predicted_loss
from scarprune.findings.probes.verdict import CRITERION, verdict
from scarprune.models.fingerprint import fingerprint_model
from scarprune.profile.sums import Profile
from scarprune.runtime.provenance import provenance
from scarprune.scores.core import profile_core
from scarprune.scores.score import Values, score
from scarprune.stats.interval import Estimate
from scarprune.stats.select import largest
from scarprune.stats.weighted import spearman_interval, win_rate
from scarprune.text.blocks import Blocks

IN_NATS = ("loss_proxy", "loss_proxy_median", "fisher", "block_fisher")
RANKED = (*IN_NATS, "fisher_activation", "taylor", "activation_power", "output_power", "wanda_down")
_PLAN_SPARSITIES = (0.1, 0.3, 0.5, 0.7)
_HALF = 0.5
_DOSES = 10
_SITES_ALONE = 3
_NOT_EXHAUSTIVE = "needs every channel of a site: --exhaustive-sites 2"

Keep = Callable[[str, Callable[[], Any]], Any]


def validate(
    model: Any,
    profile: Profile,
    blocks: Blocks,
    *,
    channels: int = 200,
    pairs_wanted: int = 40,
    exhaustive_sites: int = 0,
    seed: int = 0,
    keep: Keep | None = None,
) -> dict[str, Any]:
    """Take channels, and sets of them, out of ``model`` on ``blocks``; compare with ``profile``'s scores.

    Args:
        model: the profiled one, left as it was found.
        profile: its scores are judged; sampled labels (``labels="both"``) add predictions of sets.
        blocks: text that the profile was not measured on.
        channels: single channels tried, drawn by stratum with known chances.
        pairs_wanted: of each of the two kinds of matched pairs.
        exhaustive_sites: sites of which every channel is tried, for the recall of the truly worst.
        seed: of all draws.
        keep: ``keep(name, make)`` gives what ``make()`` gives, or what an earlier run kept under that name.

    Raises:
        ArtifactError: the profile is of other weights.
        ArgumentError: a number that cannot be.
    """
    _check(model, profile, channels, pairs_wanted, exhaustive_sites)
    keep = keep or (lambda name, make: make())
    started = time.perf_counter()
    probe = _Probe(model, profile, blocks, seed)
    found: dict[str, Any] = {
        "provenance": provenance(seed=seed, fingerprint=profile.fingerprint),
        "model": str(profile.header["provenance"].get("model", "")),
        "criterion": CRITERION,
        "blocks": len(blocks),
        "targets": blocks.targets,
        "text": blocks.source,
    }
    found |= keep("singles", lambda: probe.singles(channels, pairs_wanted, exhaustive_sites))
    found["sets"] = keep("sets", probe.sets)
    found["dose"] = keep("dose", probe.dose)
    found |= keep("plans", probe.plans)
    won = found["pairs"]["matched_in_activation_power"]
    rate = Estimate(**{"reason": None, **won["win_rate"]})
    found["verdict"] = verdict(rate, won["pairs"], found["recall"])
    found["seconds"] = {"all": time.perf_counter() - started}
    found["missing"] = {} if found["recall"] is not None else {"recall": _NOT_EXHAUSTIVE}
    return found


class _Probe:
    """The model, the text, and what every part of the probes needs of them."""

    def __init__(self, model: Any, profile: Profile, blocks: Blocks, seed: int) -> None:
        self.profile, self.blocks, self.seed = profile, blocks, seed
        self.ablator = Ablator(model, blocks)
        self.dense = self.ablator.dense()
        self.gains: dict[int, Gains] = {first: block_gains(model, blocks, first) for first in (0, 1)}
        self.scores = _scores(profile)
        self.lp = self.scores.get("loss_proxy") or score(profile, "fisher")
        self.core = profile_core(profile)

    def singles(self, channels: int, wanted: int, exhaustive: int) -> dict[str, Any]:
        """``singles``, ``pairs`` and ``recall``, from one run over all single channels they need."""
        names = list(self.lp)
        whole = tuple(names[i] for i in _spread(len(names), exhaustive))
        sample = draw(self.lp, self.core, channels, self.seed, whole)
        power = self.scores["activation_power"]
        kinds = {
            "matched_in_activation_power": pairs(power, self.lp, wanted, self.seed),
            "matched_in_loss_proxy": pairs(self.lp, power, wanted, self.seed),
        }
        single = list(zip(sample.site.tolist(), sample.channel.tolist(), strict=True))
        both = [(p.site, c) for found in kinds.values() for p in found for c in (p.high, p.low)]
        tried = list(dict.fromkeys([*single, *both]))
        done = self._effects([Removal({site: np.array([channel])}) for site, channel in tried])
        rows = {key: row for row, key in enumerate(tried)}
        at = np.array([rows[key] for key in single])
        return {
            "singles": self._singles(sample, done, at),
            "pairs": {name: _pairs(found, done, rows) for name, found in kinds.items()},
            "recall": self._recall(whole, done, rows) if whole else None,
        }

    def sets(self) -> list[dict[str, Any]]:
        """Rows of ``sets``: a few sites alone, and all together."""
        names = list(self.lp)
        alone = [names[i] for i in _spread(len(names), _SITES_ALONE)]
        return measure_sets(self.ablator, self.profile, self.lp, self.dense, self.gains, self.seed, alone)

    def dose(self) -> list[dict[str, Any]]:
        """The top j channels of the core removed, j = 1 .. k, at a few sites alone and at all together."""
        names = list(self.lp)
        places = [*((names[i],) for i in _spread(len(names), _SITES_ALONE)), tuple(names)]
        rows = []
        for place in places:
            k = min(len(self.core[name]) for name in place)
            doses = np.unique(np.linspace(1, k, min(k, _DOSES)).round().astype(int))
            removals = [Removal({n: largest(self.lp[n], int(j)) for n in place}) for j in doses]
            done = self._effects(removals)
            rows.append(
                {
                    "site": place[0] if len(place) == 1 else "all",
                    "channels": doses.tolist(),
                    "d_nats": done.d.tolist(),
                    "dl_nats": done.dl.tolist(),
                    "predicted_nats": [predicted_loss(self.profile, r.channels) for r in removals],
                }
            )
        return rows

    def plans(self) -> dict[str, Any]:
        """``hit_rate``, ``forced_hit_rate`` and ``random_core``."""
        run = (self.ablator, self.profile)
        return {
            "hit_rate": hit_rates(*run, self.dense, _PLAN_SPARSITIES, self.seed),
            "forced_hit_rate": forced_hit_rates(*run, self.dense, _HALF, self.seed),
            "random_core": random_cores(*run, self.lp, self.dense, _HALF, self.seed),
        }

    def _effects(self, removals: list[Removal]) -> Effects:
        losses = self.ablator.losses(removals)
        linear = np.stack([gain_of(removal, self.gains[0]) for removal in removals])
        return effects(losses, self.dense, linear, self.blocks)

    def _singles(self, sample: Sample, done: Effects, at: np.ndarray) -> dict[str, Any]:
        d, dl = done.d[at], done.dl[at]
        values = {
            name: np.array([v[s][c] for s, c in zip(sample.site, sample.channel, strict=True)])
            for name, v in self.scores.items()
        }
        core = sample.stratum == "core"

        def against(x: np.ndarray, y: np.ndarray, rows: np.ndarray | slice) -> dict[str, Any]:
            parts = (x[rows], y[rows], sample.weight[rows], sample.stratum[rows])
            return spearman_interval(*parts, self.seed).as_json()

        return {
            "channels": {
                "site": sample.site.tolist(),
                "channel": sample.channel.tolist(),
                "stratum": sample.stratum.tolist(),
                "weight": sample.weight.tolist(),
                "dl_nats": dl.tolist(),
                "d_nats": d.tolist(),
                "d_standard_error": [number(x) for x in done.error[at]],
                "first_order": done.first_order[at].tolist(),
                **{name: column.tolist() for name, column in values.items()},
            },
            "spearman": {
                name: {
                    "d": against(column, d, slice(None)),
                    "dl": against(column, dl, slice(None)),
                    "core_only_d": against(column, d, core),
                }
                for name, column in values.items()
            },
            "calibration": {n: _calibration(values[n], d) for n in IN_NATS if n in values},
        }

    def _recall(
        self, sites: tuple[str, ...], done: Effects, rows: Mapping[tuple[str, int], int]
    ) -> dict[str, float]:
        """Share of the truly most harmful k channels of ``sites`` among the top k by each score."""
        hits, of = dict.fromkeys(self.scores, 0), 0
        for site in sites:
            k = len(self.core[site])
            harm = np.array([done.d[rows[site, c]] for c in range(len(self.lp[site]))])
            worst = largest(harm, k)
            of += k
            for name, values in self.scores.items():
                hits[name] += len(np.intersect1d(worst, largest(values[site], k)))
        recalls = {name: count / of for name, count in hits.items()}
        recalls.setdefault("loss_proxy", recalls.get("fisher", 0.0))
        return recalls


def _pairs(found: list[Pair], done: Effects, rows: Mapping[tuple[str, int], int]) -> dict[str, Any]:
    wins = sum(done.d[rows[p.site, p.high]] > done.d[rows[p.site, p.low]] for p in found)
    return {"pairs": len(found), "wins": int(wins), "win_rate": win_rate(int(wins), len(found)).as_json()}


def _calibration(predicted: np.ndarray, measured: np.ndarray) -> dict[str, Any]:
    """How measured D compares with the nats that a score predicts."""
    known = predicted > 0
    if not known.any():
        return {"median_measured_over_predicted": None, "worst_over_prediction": None}
    ratio = measured[known] / predicted[known]
    harmed = ratio[ratio > 0]
    return {
        "median_measured_over_predicted": float(np.median(ratio)),
        "worst_over_prediction": float(1 / harmed.min()) if len(harmed) else None,
        "not_positive": int((ratio <= 0).sum()),
    }


def _scores(profile: Profile) -> dict[str, Values]:
    found = {}
    for name in RANKED:
        try:
            found[name] = score(profile, name)
        except ArtifactError:  # needs labels that this profile was not measured with
            continue
    return found


def _spread(count: int, wanted: int) -> list[int]:
    """``wanted`` of 0 .. count - 1, evenly apart, the first and the last among them."""
    return [int(i) for i in np.unique(np.linspace(0, count - 1, min(count, wanted)).round())]


def _check(model: Any, profile: Profile, channels: int, wanted: int, exhaustive: int) -> None:
    fingerprint = fingerprint_model(model)
    if fingerprint != profile.fingerprint:
        raise ArtifactError(
            f"The profile is of other weights ({profile.fingerprint[:12]}) than the model's "
            f"({fingerprint[:12]}).",
            hint="Name the model that was profiled.",
        )
    if channels < 1 or wanted < 0 or exhaustive < 0:
        raise ArgumentError(
            f"Channels, pairs and sites count from 1, 0 and 0, not {channels}, {wanted} and {exhaustive}."
        )
