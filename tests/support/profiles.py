"""Synthetic profiles: random u, s, x and weights, and all their sums by brute force in float64, no torch."""

from dataclasses import dataclass

import numpy as np

from scarprune.models.site import Site
from scarprune.profile.sums import DOUBLE, GROUPS, Profile

BANDS = (slice(0, 1), slice(1, 4), slice(4, None))


@dataclass
class Raw:
    """What one site saw, [blocks, T, ...], and its weights; ``gate`` is None for a plain network."""

    site: Site
    u: np.ndarray
    s: np.ndarray
    s_model: np.ndarray
    x: np.ndarray
    gate: np.ndarray | None
    up: np.ndarray
    down: np.ndarray
    s_entropy: np.ndarray  # gradient of each block's mean entropy
    g: dict[str, np.ndarray]  # gradients of the weights, [blocks, m, d], by role

    @property
    def q(self):
        return self.u * self.s

    @property
    def q_model(self):
        return self.u * self.s_model


def make_raw(seed=0, widths=(40, 40), hidden=32, blocks=12, tokens=9, gated=True):
    """Random sites whose channels differ in size by orders of magnitude, as real ones do."""
    rng = np.random.default_rng(seed)
    raws = []
    for layer, m in enumerate(widths):
        site = Site(f"model.layers.{layer}.mlp.down_proj", layer, m, hidden, gated)
        shape = (blocks, tokens, m)
        u = rng.standard_normal(shape) * rng.lognormal(0, 1, m) + rng.normal(0, 0.5, m)
        shared = rng.standard_normal((blocks, tokens, 1))  # so that channels have something in common
        s = (rng.standard_normal(shape) + shared) * rng.lognormal(-3, 1, m)
        s_model = (rng.standard_normal(shape) + shared) * rng.lognormal(-3, 1, m)
        s[:, -1] = s_model[:, -1] = 0.0  # the last position has no target
        x = rng.standard_normal((blocks, tokens, hidden))
        gate, up = rng.standard_normal((2, m, hidden))
        down = rng.standard_normal((hidden, m)) * rng.lognormal(0, 0.5, m)
        own = np.random.default_rng([seed, layer])
        s_entropy = own.standard_normal(shape) * own.lognormal(-3, 1, m)
        roles = ("gate", "up", "down") if gated else ("up", "down")
        g = {role: own.standard_normal((blocks, m, hidden)) * own.lognormal(-3, 1, (m, 1)) for role in roles}
        raws.append(Raw(site, u, s, s_model, x, gate if gated else None, up, down, s_entropy, g))
    return raws


def profile_of(raws, labels=("data", "model"), rho=0.1, pass2=True, fingerprint="f" * 64, extras=False):
    """The profile of ``raws``, with all that a profile of a model holds, in the dtypes of files."""
    blocks, tokens, _ = raws[0].u.shape
    group = np.arange(blocks) * GROUPS // blocks
    tensors = {}
    for raw in raws:
        kept = _sums(raw, labels, group) | _weights(raw)
        core = core_of(raw, rho, labels)
        kept |= connection_of(raw, core)
        if pass2:
            kept |= redundancy_of(raw, core, labels)
        if extras:
            kept |= extras_of(raw)
        tensors |= {f"{raw.site.name}/{name}": _stored(name, array) for name, array in kept.items()}
    header = {
        "fingerprint": fingerprint,
        "labels": list(labels),
        "rho": rho,
        "counts": {
            "targets": [blocks * len(range(tokens - 1)[band]) for band in BANDS],
            "positions": [blocks * len(range(tokens)[band]) for band in BANDS],
            "blocks": blocks,
        },
        "groups": (np.bincount(group, minlength=GROUPS) * (tokens - 1)).tolist(),
        "text": [{"source": "synthetic", "blocks": blocks, "length": tokens, "seed": 0}],
        "provenance": {"model": "synthetic"},
    }
    return Profile(sites=[raw.site for raw in raws], header=header, tensors=tensors)


def synthetic_profile(seed=0, widths=(40, 40), **options):
    """A profile of random numbers, for tests that need any profile."""
    return profile_of(make_raw(seed, widths), **options)


def core_of(raw, rho, labels=("data",)):
    """The core by a full sort of (-LP, index)."""
    q2 = ((raw.q if "data" in labels else raw.q_model) ** 2).sum((0, 1))
    k = max(1, int(rho * len(q2) + 1e-9))
    return np.array(sorted(sorted(range(len(q2)), key=lambda i: (-q2[i], i))[:k]))


def connection_of(raw, core):
    size = max(1, round(len(raw.down) / 16))
    written = np.abs(raw.down[:, core]).sum(1)
    support = np.array(sorted(sorted(range(len(written)), key=lambda h: (-written[h], h))[:size]))
    return {"support": support, "conn": np.abs(raw.down[support]).sum(0) / np.abs(raw.down).sum(0)}


def redundancy_of(raw, core, labels=("data",)):
    q = (raw.q if "data" in labels else raw.q_model).reshape(-1, raw.site.width)
    r = np.corrcoef(q.T)[:, core]
    signed, unsigned = (-0.5 * np.log(1 - np.minimum(x, 0.9999) ** 2) for x in (np.maximum(r, 0), np.abs(r)))
    top = min(5, len(core))
    return {
        "red/top5": np.sort(signed, axis=1)[:, -top:].mean(1),
        "red/top5_unsigned": np.sort(unsigned, axis=1)[:, -top:].mean(1),
        "red/mean": signed.mean(1),
        "red/core": core,
    }


def extras_of(raw):
    """What the extra passes give."""
    weights = {"gate": raw.gate, "up": raw.up, "down": raw.down.T}
    products = {role: weights[role] * g for role, g in raw.g.items()}  # [blocks, m, d]
    readers = [weights[role] for role in raw.g if role != "down"]
    kept = {
        "entropy/sum_abs_q": np.abs(raw.u * raw.s_entropy).sum((0, 1)),
        "gradient/magnitude": sum(np.abs(product.sum(0)).sum(1) for product in products.values()),
        "gradient/block_squares": sum((product**2).sum((0, 2)) for product in products.values()),
        "hessian/down": _unexplained(raw.u),
        "hessian/readers": sum((rows**2 * _unexplained(raw.x)).sum(1) for rows in readers),
    }
    return kept | {f"gradient/sum_{role}": products[role].sum((0, 2)) for role in raw.g if role != "down"}


def _unexplained(inputs):
    flat = inputs.reshape(-1, inputs.shape[-1])
    moment = flat.T @ flat / len(flat)
    return 1 / np.diag(np.linalg.inv(moment + 0.01 * np.trace(moment) / len(moment) * np.eye(len(moment))))


def _sums(raw, labels, group):
    u = raw.u
    kept = {"sum_u": _bands(u), "sum_u2": _bands(u**2)}
    kept["groups_u2"] = _groups((u**2).sum(1), group * 4 // GROUPS, 4)
    kept["block_mean_abs_u_squared"] = (np.abs(u).mean(1) ** 2).sum(0)
    kept["block_norm_u"] = np.sqrt((u**2).sum(1)).sum(0)
    kept["sum_x2"] = (raw.x**2).sum((0, 1))
    for label in labels:
        s, q = (raw.s, raw.q) if label == "data" else (raw.s_model, raw.q_model)
        big_g, big_s = q.sum(1), s.sum(1)
        of_label = {
            "sum_s": _bands(s),
            "sum_s2": _bands(s**2),
            "sum_q": _bands(q),
            "sum_abs_q": _bands(np.abs(q)),
            "sum_q2": _bands(q**2),
            "sum_q4": _bands(q**4),
            "sum_us2": _bands(u * s**2),
            "block_G2": (big_g**2).sum(0),
            "block_GS": (big_g * big_s).sum(0),
            "block_S2": (big_s**2).sum(0),
            "block_q2_squared": ((q**2).sum(1) ** 2).sum(0),
            "groups_q2": _groups((q**2).sum(1), group, GROUPS),
            "groups_G": _groups(big_g, group, GROUPS),
        }
        kept |= {("model/" if label == "model" else "") + name: array for name, array in of_label.items()}
    return kept


def _weights(raw):
    root = np.sqrt((raw.x**2).sum((0, 1)))
    kept = {
        "up_norm2": np.linalg.norm(raw.up, axis=1),
        "wanda_up": (np.abs(raw.up) * root).sum(1),
        "down_norm2": np.linalg.norm(raw.down, axis=0),
        "down_norm1": np.abs(raw.down).sum(0),
    }
    if raw.gate is not None:
        kept |= {
            "gate_norm2": np.linalg.norm(raw.gate, axis=1),
            "wanda_gate": (np.abs(raw.gate) * root).sum(1),
        }
    return kept


def _bands(values):
    return np.stack([values[:, band].sum((0, 1)) for band in BANDS])


def _groups(per_block, group, count):
    return np.stack([per_block[group == g].sum(0) for g in range(count)])


def _stored(name, array):
    if array.dtype.kind != "f":
        return array.astype(np.int64)
    return array.astype(np.float64 if name.removeprefix("model/") in DOUBLE else np.float32)
