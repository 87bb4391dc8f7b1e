"""Sums over tokens by NumPy in float64: an independent route to what the kernel gives."""

import itertools

import numpy as np
import torch


def exact_parts(u: torch.Tensor, s: torch.Tensor, chunk: int | None = None) -> torch.Tensor:
    """float64 [parts, 10, B, m] of u, s [B, T, m]: positions 0, 1 to 3, and the rest or its chunks."""
    x, y = (t.detach().double().cpu().numpy() for t in (u, s))
    q = x * y
    terms = np.stack([y, y**2, q, np.abs(q), q**2, q**4, x * y**2, x, x**2, np.abs(x)])
    tokens = x.shape[1]
    edges = [0, 1, 4, *(range(4 + chunk, tokens, chunk) if chunk else ()), max(4, tokens)]
    parts = [terms[:, :, lo:hi].sum(2) for lo, hi in itertools.pairwise(edges)]
    return torch.from_numpy(np.stack(parts))


def error(parts: torch.Tensor, u: torch.Tensor, s: torch.Tensor) -> float:
    """The largest error of a channel's sum in one block and band, by the sum of the terms' sizes."""
    found = parts.double().cpu()
    assert found.shape[1:] == (10, u.shape[0], u.shape[2])
    found = torch.stack([found[0], found[1], found[2:].sum(0)])
    sizes = exact_parts(u.abs(), s.abs())
    return float(((found - exact_parts(u, s)).abs() / sizes.clamp_min(1e-300)).max())


def exact_rows(parts: torch.Tensor, membership: torch.Tensor) -> torch.Tensor:
    """float64 [51, m], what pass 1 keeps of a site: of sums over tokens [parts, 10, B, m], groups [8, B]."""
    x, groups = parts.double().cpu().numpy(), membership.double().cpu().numpy()
    banded = np.stack([x[0].sum(1), x[1].sum(1), x[2:].sum((0, 2))], axis=1)  # [10, 3, m]
    s, g, q2, u2 = x.sum(0)[[0, 2, 4, 8]]
    rows = [*banded[:7].reshape(21, -1), (g * g).sum(0), (g * s).sum(0), (s * s).sum(0), (q2 * q2).sum(0)]
    rows += [*np.einsum("gb,bm->gm", groups, q2), *np.einsum("gb,bm->gm", groups, g)]
    rows += [*banded[7:9].reshape(6, -1), *np.einsum("hgb,bm->hm", groups.reshape(4, 2, -1), u2)]
    return torch.from_numpy(np.stack(rows))


def write_squares(x: torch.Tensor, sums: torch.Tensor, chunk: int) -> None:
    """What ``input_kernel.launch`` writes."""
    for total, part in zip(sums, x.double().split(chunk), strict=True):
        total.copy_(part.square().sum(0))
