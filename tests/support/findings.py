"""Small artifacts of findings made by hand: two sites of 100 and 200 channels, one of them without loss."""

from pathlib import Path
from typing import Any

from scarprune.artifacts import write_json

NASTY = "</script><script>window.broken=1</script><!--"


def estimate(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


def spread(
    median: float | None, low: float | None = None, high: float | None = None, **more: Any
) -> dict[str, Any]:
    return {"median": median, "min": low, "max": high, **more}


def findings(sites: int = 2, width: int = 100, core: int = 2, points: int = 3) -> dict[str, Any]:
    """Findings of ``sites`` sites; the name of the first tries to end the page's script."""
    names = [NASTY if layer == 0 else f"layers.{layer}.mlp" for layer in range(sites)]
    share = [
        {"name": name, "core_share": estimate(0.1 + 0.8 * at / sites, 0.1, 0.95)}
        for at, name in enumerate(names)
    ]
    for entry in share:
        entry |= {"cross_fitted": 0.08, "by_bands": {"all": 0.1, "without_first_4": None}}
    jaccard = [
        {"name": name, "jaccard": 0.25, "chance_jaccard": 0.005, "spearman": 0.5, "overlap": 0.4}
        for name in names
    ]
    return {
        "provenance": {"scarprune": "0"},
        "model": "made/by-hand",
        "profiles": [
            {
                "path": None,
                "fingerprint": "f" * 64,
                "labels": ["data"],
                "blocks": 8,
                "targets": 800,
                "text": [],
            }
        ],
        "summary": {"statements": [{"about": "concentration", "text": "The core <holds> 31.0% & more."}]},
        "sites": [
            {
                "name": name,
                "layer": layer,
                "width": width,
                "hidden": 8,
                "core_share": 0.1,
                "core": list(range(core)),
                "halo": None,
            }
            for layer, name in enumerate(names)
        ],
        "concentration": {"labels": {"data": {"sites": share}}},
        "explanations": {"scores": {"activation_power": {"sites": jaccard}, "wanda": {"sites": jaccard}}},
        "stability": {
            "split_half": {"contiguous": {"jaccard": spread(0.3, 0.1, 0.5, chance=0.005)}},
            "activation_split_half": None,
            "settling": {
                "tokens": [100, 200],
                "jaccard_with_all": [0.5, 1.0],
                "disjoint_tokens": [100],
                "disjoint_jaccard": [0.25],
            },
        },
        "halo": {
            "membership": None,
            "write_support": {
                "sites": [
                    {
                        "name": name,
                        "share": 0.2 if name == names[0] else None,
                        "random_mean": 0.12,
                        "random_low": 0.1,
                        "random_high": 0.15,
                    }
                    for name in names
                ]
            },
            "sensitivity": [
                _sensitivity(),
                _sensitivity(eta=0.05),
                _sensitivity(rho=0.02, auc=estimate(None)),
            ],
            "controls": {
                "variants": {
                    "plain": {
                        "matched": {
                            "ratio": estimate(1.5, 1.2, 1.9),
                            "sites": [{"name": name, "auc": estimate(0.6, 0.5, 0.7)} for name in names],
                        }
                    }
                }
            },
        },
        "odd_tokens": {
            "threshold": 30,
            "flagged": 1,
            "of": 4,
            "channels": [
                {
                    "site": names[0],
                    "channel": 1,
                    "rank": 1,
                    "n_eff": 2.5,
                    "lp": 1.0,
                    "tokens": [
                        {
                            "block": 0,
                            "position": 3,
                            "share_of_lp": 0.5,
                            "before": NASTY,
                            "token": "x",
                            "after": None,
                        }
                    ],
                }
            ],
        },
        "agreement": None,
        "channels": {
            "sites": [_channels(name, layer, width, core, points) for layer, name in enumerate(names)]
        },
        "paper": {"models": {}},
        "missing": {"agreement": "needs two profiles of the model or more"},
    }


def _sensitivity(**other: Any) -> dict[str, Any]:
    return {
        "rho": 0.01,
        "eta": 0.1,
        "support_size": 16,
        "statistic": "mean",
        "ratio": estimate(1.2, 1.1, 1.3),
        "auc": estimate(0.6, 0.55, 0.65),
        "halo_jaccard_with_default": 1.0,
        **other,
    }


def _channels(name: str, layer: int, width: int, core: int, points: int) -> dict[str, Any]:
    def part(first: int, count: int) -> dict[str, Any]:
        index = list(range(first, first + count))
        return {
            "index": index,
            "lp": [0.5 / (1 + i) for i in index],
            "activation": [1.0 + i for i in index],
            "activation_rank": index,
            "overlap": [0.125] * count,
            "n_eff": [None] * count,
        }

    return {
        "name": name,
        "layer": layer,
        "width": width,
        "rank": [1, 10, width],
        "lp": [0.5, 0.25, 0.0],
        "cumulative": [0.5, 0.75, 1.0],
        "core": part(0, core),
        "halo": None,
        "rest": {**part(core, points), "of": width - core},
        "bins": {
            "log10_lp_edges": [-3.0, -1.0, 0.0],
            "log10_activation_edges": [0.0, 1.0, 2.0],
            "counts": [[0, 3], [4, 0]],
        },
    }


def validation() -> dict[str, Any]:
    """Probes of three channels, one set, one dose curve, two prunings; one removal lowered the loss."""
    return {
        "provenance": {},
        "model": "made/by-hand",
        "criterion": "Refuted if random channels cost more.",
        "verdict": {"refuted": False, "reason": "They cost less."},
        "singles": {
            "channels": {
                "site": ["a", "a", "b"],
                "channel": [1, 2, 3],
                "stratum": ["core", "rest", "rest"],
                "d_nats": [0.5, 0.01, -0.001],
                "loss_proxy": [0.25, 0.02, 0.001],
                "block_fisher": [0.3, 0.01, None],
            }
        },
        "sets": [
            {
                "set": "core",
                "site": "all",
                "replacement": "zero",
                "positions": "all",
                "size": 4,
                "d_nats": 2.0,
                "predicted_nats": 0.5,
                "ratio": 4.0,
                "not_quadratic": True,
            },
            {
                "set": "halo",
                "site": "a",
                "replacement": "mean",
                "positions": "all",
                "size": 4,
                "d_nats": 0.1,
                "predicted_nats": 0.2,
                "ratio": 0.5,
                "not_quadratic": False,
            },
        ],
        "dose": [
            {
                "site": "all",
                "channels": [1, 2, 4],
                "d_nats": [0.1, 0.3, None],
                "predicted_nats": [0.1, 0.2, 0.3],
            }
        ],
        "hit_rate": [
            {
                "score": "wanda",
                "sparsity": 0.5,
                "share_of_core_pruned": 0.25,
                "excess_nats": 1.5,
                "standard_error": 0.1,
            },
            {
                "score": "random",
                "sparsity": 0.5,
                "share_of_core_pruned": 0.5,
                "excess_nats": 3.0,
                "standard_error": None,
            },
        ],
        "recall": {"activation_power": 0.25, "loss_proxy": 0.5},
        "forced_hit_rate": [_pruned(share_of_core_pruned=1.0), _pruned(share_of_core_pruned=0.0)],
        "random_core": [
            _pruned(ranking="loss_proxy", protected="core"),
            _pruned(ranking="random", protected="random", standard_error=None),
        ],
        "missing": {},
    }


def _pruned(**other: Any) -> dict[str, Any]:
    return {"sparsity": 0.5, "excess_nats": 2.0, "standard_error": 0.25, **other}


def trajectory() -> dict[str, Any]:
    """Two checkpoints."""
    points = [
        {
            "name": f"step{step}",
            "step": step,
            "tokens": None,
            "core_share": spread(share, 0.1, 0.9),
            "jaccard_with_final": spread(share, 0.0, 1.0, chance=0.01),
            "spearman_with_final": spread(None),
        }
        for step, share in ((100, 0.2), (200, 0.6))
    ]
    return {
        "provenance": {},
        "model": "made/by-hand",
        "checkpoints": points,
        "births": {"sites": [], "counts": [{"step": 100, "born": 3}, {"step": 200, "born": 1}]},
        "missing": {},
    }


def reproduction() -> dict[str, Any]:
    """Three prunings, one without a number, and a claim that nobody could decide."""
    rows = [("ours", "scar_prot", 1.0), ("paper", "scar_prot", 2.0), ("ours", "wanda", None)]
    return {
        "provenance": {},
        "model": "made/by-hand",
        "preset": "demo",
        "steps": [],
        "pruning": [
            {
                "protocol": protocol,
                "score": score,
                "sparsity": 0.5,
                "perplexity": 20.0,
                "excess_nats": excess,
                "standard_error": 0.1,
                "share_of_core_pruned": 0.0,
            }
            for protocol, score, excess in rows
        ],
        "table": [
            {
                "quantity": "core share",
                "paper": 0.587,
                "paper_protocol": 0.3,
                "our_protocol": None,
                "note": NASTY,
            }
        ],
        "claims": [{"claim": "The core matters", "holds": None, "why": "Too few probes."}],
        "missing": {},
    }


def sweep() -> dict[str, Any]:
    """Two ways at two sparsities; one of them gave no number."""
    means = (0.3, 1.2, 0.2, None)
    ways = [("loss_proxy", "none", None), ("loss_proxy", "ls", "core")]
    places = [(way, sparsity) for way in ways for sparsity in (0.2, 0.5)]
    return {
        "provenance": {},
        "model": "demo",
        "rows": [
            {
                "score": score,
                "compensate": compensate,
                "protect": protect,
                "sparsity": sparsity,
                "achieved_sparsity": sparsity,
                "parameters_after": 1000,
                "excess_nats": {"value": mean, "low": None, "high": None, "sd": 0.1, "by_seed": [mean]},
            }
            for ((score, compensate, protect), sparsity), mean in zip(places, means, strict=True)
        ],
    }


KINDS = {
    "findings": findings,
    "validation": validation,
    "trajectory": trajectory,
    "reproduction": reproduction,
    "sweep": sweep,
}


def write_folder(folder: Path, *kinds: str) -> Path:
    """A folder of findings with the artifacts of ``kinds``, all where none is named."""
    for kind in kinds or KINDS:
        write_json(folder / f"{kind}.json", kind, KINDS[kind]())
    return folder
