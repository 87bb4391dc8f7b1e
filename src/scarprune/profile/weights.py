"""What a profile keeps of the weights, so that scores and plans need no model."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from scarprune.models.site import Projection, Site
from scarprune.models.weights import matrix

Function = Callable[[torch.Tensor], torch.Tensor]

_CHUNK_ELEMENTS = 1 << 24


def weight_norms(model: nn.Module, site: Site) -> dict[str, np.ndarray]:
    """2-norms of gate and up rows, 1- and 2-norms of the down columns: float32 [m] each."""
    norms = {f"{reader.role}_norm2": _over_rows(model, reader, _norm2) for reader in site.readers}
    norms["down_norm2"] = _over_columns(model, site.down, _norm2)
    norms["down_norm1"] = _over_columns(model, site.down, lambda rows: rows.abs().sum(1))
    return norms


def wanda_terms(model: nn.Module, site: Site, sum_x2: np.ndarray) -> dict[str, np.ndarray]:
    """``wanda_gate`` and ``wanda_up`` [m]: sum over j of abs(W_ij) * norm2(x_j) (peers F1)."""
    norm_x = np.sqrt(sum_x2)

    def term(rows: torch.Tensor) -> torch.Tensor:
        return rows.abs() @ torch.from_numpy(norm_x).to(rows)

    return {f"wanda_{reader.role}": _over_rows(model, reader, term) for reader in site.readers}


def weighted_squares(model: nn.Module, site: Site, factors: np.ndarray) -> np.ndarray:
    """Sum over the gate row and the up row of W_ij^2 * ``factors[j]``: float64 [m]."""

    def term(rows: torch.Tensor) -> torch.Tensor:
        return rows.square() @ torch.from_numpy(factors).to(rows)

    total = np.zeros(site.width)
    for reader in site.readers:
        total += _over_rows(model, reader, term)
    return total


def connection(
    model: nn.Module, site: Site, core: np.ndarray, size: int | None = None
) -> dict[str, np.ndarray]:
    """Write support and connection (``method`` 4): ``support`` int64 [K] ascending, ``conn`` [m].

    K defaults to round(d / 16). A column of zeros has connection 0.
    """
    down = matrix(model, site.down).detach()
    written = down.index_select(1, torch.from_numpy(core).to(down.device)).float().abs().sum(1).cpu().numpy()
    size = size or max(1, round(site.hidden / 16))
    support = np.sort(np.argsort(-written, kind="stable")[:size])
    rows = down.index_select(0, torch.from_numpy(support).to(down.device))
    on_support = rows.float().abs().sum(0).cpu().numpy().astype(np.float64)
    norm1 = _over_columns(model, site.down, lambda columns: columns.abs().sum(1)).astype(np.float64)
    conn = np.divide(on_support, norm1, out=np.zeros_like(on_support), where=norm1 > 0)
    return {"support": support.astype(np.int64), "conn": conn.astype(np.float32)}


def _norm2(rows: torch.Tensor) -> torch.Tensor:
    norms: torch.Tensor = torch.linalg.vector_norm(rows, dim=1)
    return norms


def _over_rows(model: nn.Module, projection: Projection, function: Function) -> np.ndarray:
    return _collect(matrix(model, projection).detach(), function)


def _over_columns(model: nn.Module, projection: Projection, function: Function) -> np.ndarray:
    return _collect(matrix(model, projection).detach().T, function)


def _collect(rows: torch.Tensor, function: Function) -> np.ndarray:
    """``function`` of float32 rows, a few at a time so that no whole copy of the matrix is made."""
    found = torch.cat([function(part) for part in _chunks(rows)])
    return found.cpu().numpy().astype(np.float32)  # a GPU is waited for once


def _chunks(rows: torch.Tensor) -> Iterator[torch.Tensor]:
    step = max(1, _CHUNK_ELEMENTS // rows.shape[1])
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        yield part.to(torch.promote_types(part.dtype, torch.float32))
