"""One pass over text that keeps cross moments of q by unit of blocks, and the tokens that q rests on."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from scarprune.models.context import context_length, vocabulary_size
from scarprune.models.find import find_sites
from scarprune.models.fingerprint import fingerprint_model
from scarprune.profile.passes import begin, check, first_scale, prepared
from scarprune.profile.state import Keeper, State
from scarprune.profile.token_sums import wide
from scarprune.text.blocks import Blocks
from scarprune.text.fit import check_fits

UNITS = 32
FEWEST_UNITS = 8
VARIANTS = ("plain", "token_weighted", "without_first_4")
TOP = 5


@dataclass
class Job:
    """Channels ``rows`` crossed with ``cols``; tokens weigh as in ``variants``, the first of VARIANTS."""

    rows: np.ndarray
    cols: np.ndarray
    variants: tuple[str, ...] = ("plain",)


@dataclass
class Crossed:
    """Sums over the tokens of each unit, for R rows and K cols.

    ``cross`` [U, R, K], of q_i q_s; ``first`` and ``second``, [U, R] and [U, K] each, of q and q^2; ``count``
    [U], of tokens or of their weights.
    """

    cross: np.ndarray
    first: tuple[np.ndarray, np.ndarray]
    second: tuple[np.ndarray, np.ndarray]
    count: np.ndarray


@dataclass
class Top:
    """The tokens with the largest q^2 of each of k channels: [k, n] each; ``total`` [k] is the sum of q^2."""

    value: np.ndarray
    block: np.ndarray
    position: np.ndarray
    total: np.ndarray


@dataclass
class Moments:
    """By site: one ``Crossed`` a variant for each job, and the top tokens of the core."""

    units: int
    crossed: dict[str, list[dict[str, Crossed]]] = field(default_factory=dict)
    top: dict[str, Top] = field(default_factory=dict)


def bytes_needed(jobs: Mapping[str, Sequence[Job]], units: int) -> int:
    """4 bytes * units * sum over jobs and variants of R * K: 1.6 GB for 32 sites of 14,336, cores of 143."""
    return sum(
        4 * units * len(job.rows) * len(job.cols) * len(job.variants)
        for of_site in jobs.values()
        for job in of_site
    )


def unit_of_blocks(count: int) -> np.ndarray:
    """The unit of each of ``count`` blocks: up to 32 contiguous runs."""
    return np.arange(count) * min(UNITS, count) // max(count, 1)


def gather(
    model: Any,
    blocks: Blocks,
    jobs: Mapping[str, Sequence[Job]],
    core: Mapping[str, np.ndarray],
    rms: Mapping[str, np.ndarray],
    batch: int | Literal["auto"] = "auto",
    resume: Path | None = None,
) -> Moments:
    """Walk ``blocks`` once with data labels and gather what ``jobs`` ask for (``method`` 10).

    q is divided by its channel's ``rms`` [m]: no correlation depends on it, and float32 stays in range.
    What is gathered stays on the device until the end; ``resume`` names a file for an unfinished run.

    Raises:
        ArgumentError: a batch that cannot be.
        TextError: ids outside the vocabulary, blocks beyond the context or of one token.
        NumericsError: a q is not finite.
        MemoryBudgetError: not even one block fits.
    """
    check(batch, blocks)
    check_fits(blocks, vocabulary_size(model), context_length(model.config))
    sites, units, keeper = find_sites(model), unit_of_blocks(len(blocks)), Keeper(resume)
    identity = {
        "weights": fingerprint_model(model),
        "text": blocks.fingerprint,
        "channels": _digest(jobs, core),
        "dtype": str(model.dtype),
    }
    state = keeper.load(identity) or State(identity, scale=first_scale(model))
    found = _Gathered([site.name for site in sites], jobs, core, rms, units, state)
    with prepared(model):
        run = begin(
            model,
            sites,
            blocks,
            np.arange(len(blocks)),
            state,
            keeper,
            batch=batch,
            totals=2 * bytes_needed(jobs, int(units[-1]) + 1),  # and once more for a batch not yet added
            work=float(blocks.lengths[state.next_block :].sum()),
            what="Controls of the halo:",
        )
        run.walk(1, found, ("data",), "Halo")
    keeper.remove()
    return found.moments()


def _digest(jobs: Mapping[str, Sequence[Job]], core: Mapping[str, np.ndarray]) -> str:
    """What tells two sets of jobs apart."""
    digest = hashlib.sha256()
    for site, of_site in jobs.items():
        for channels in (core[site], *(array for job in of_site for array in (job.rows, job.cols))):
            digest.update(f"{site} {len(channels)} ".encode() + channels.astype("<i8").tobytes())
    return digest.hexdigest()


@dataclass
class _Pick:
    """Channels of one site on its device, and the factor that brings each to an rms of 1."""

    index: torch.Tensor
    factor: torch.Tensor

    def of(self, q: torch.Tensor) -> torch.Tensor:
        """The channels' q, [..., n], of the site's [..., m]."""
        return q.index_select(-1, self.index).mul_(self.factor)


@dataclass
class _Here:
    """What one site needs on its device."""

    largest: float  # rms
    jobs: list[tuple[_Pick, _Pick, int]]  # rows, columns, how many variants
    core: _Pick


class _Gathered:
    """Sums by unit, and the top tokens, of every site: the observer of the run.

    Sums over one batch's tokens are float32 products; sums of q and q^2 over batches float64.
    """

    def __init__(
        self,
        names: Sequence[str],
        jobs: Mapping[str, Sequence[Job]],
        core: Mapping[str, np.ndarray],
        rms: Mapping[str, np.ndarray],
        units: np.ndarray,
        state: State,
    ) -> None:
        self.names, self.jobs, self.core, self.units, self.state = names, jobs, core, units, state
        self.rms = {name: np.where(rms[name] > 0, rms[name], np.inf) for name in names}
        self._numbers, self._tokens = np.arange(0), 0
        self._pending: dict[int, dict[str, torch.Tensor]] = {}
        self._totals: dict[int, dict[str, torch.Tensor]] = {}
        self._sites: dict[int, _Here] = {}
        self._members: dict[torch.device, torch.Tensor] = {}
        self._restore(state.of_pass(1))

    # -- one batch ---------------------------------------------------------------------------------

    def begin(self, groups: np.ndarray, tokens: int) -> None:
        """Forget what an unfinished batch left; expect the blocks numbered ``groups``, of ``tokens`` each."""
        self._pending.clear()
        self._members.clear()
        self._numbers, self._tokens = groups, tokens

    def observe(self, index: int, u: torch.Tensor, s: torch.Tensor) -> None:
        """See u and s of one site; the last position of a block has no target and does not count."""
        shape = (len(self._numbers), self._tokens, u.shape[-1])
        u, s = u.reshape(shape)[:, :-1], s.reshape(shape)[:, :-1]
        here, members = self._here(index, u.device), self._member(u.device)
        q = (wide(s) * (1 / (self.state.scale * here.largest))).mul_(wide(u))
        weights = _weights(q)
        found: dict[str, torch.Tensor] = {}
        for place, (rows, columns, variants) in enumerate(here.jobs):
            for key, by_block in _products(rows.of(q), columns.of(q), weights[:, :variants]).items():
                by_unit = members.to(by_block.dtype) @ by_block.flatten(1)
                found[f"{place}/{key}"] = by_unit.view(len(members), *by_block.shape[1:])
        self._pending[index] = found | self._top(here.core.of(q).square_())

    def _top(self, squares: torch.Tensor) -> dict[str, torch.Tensor]:
        """The batch's tokens with the largest of ``squares`` [B, T, k], largest first: [n, k] each."""
        tokens, flat = squares.shape[1], squares.flatten(0, 1)
        value, place = flat.topk(min(TOP, len(flat)), dim=0)
        numbers = torch.from_numpy(self._numbers).to(place.device)
        return {
            "top/value": value,
            "top/block": numbers[place // tokens],
            "top/position": place % tokens,
            "top/total": flat.sum(0, dtype=_widest(flat.device)),
        }

    def _member(self, device: torch.device) -> torch.Tensor:
        """[units of the batch, B], 1 where a block is of a unit."""
        if device not in self._members:
            of_block = self.units[self._numbers]
            members = torch.from_numpy(np.unique(of_block)[:, None] == of_block)
            self._members[device] = members.float().to(device)
        return self._members[device]

    def _here(self, index: int, device: torch.device) -> _Here:
        if index not in self._sites:
            name = self.names[index]
            rms, known = self.rms[name], np.isfinite(self.rms[name])
            largest = float(rms[known].max()) if known.any() else 1.0

            def pick(channels: np.ndarray) -> _Pick:
                factor = np.where(known[channels], largest / rms[channels], 1.0).astype(np.float32)
                return _Pick(torch.from_numpy(channels).to(device), torch.from_numpy(factor).to(device))

            jobs = [(pick(job.rows), pick(job.cols), len(job.variants)) for job in self.jobs[name]]
            self._sites[index] = _Here(largest, jobs, pick(self.core[name]))
        return self._sites[index]

    # -- totals ------------------------------------------------------------------------------------

    def commit(self, scale: float = 1.0) -> None:
        """Add the batch to the totals; ``scale`` has been taken out of s already."""
        units = torch.from_numpy(np.unique(self.units[self._numbers]))
        count = int(self.units[-1]) + 1
        for index, found in self._pending.items():
            totals = self._totals.setdefault(index, {})
            _merge_top(totals, found)
            for key, sums in found.items():
                if key not in totals:
                    totals[key] = sums.new_zeros((count, *sums.shape[1:]))
                totals[key] = totals[key].to(sums.device).index_add_(0, units.to(sums.device), sums)
        self._pending.clear()

    def arrays(self) -> dict[str, np.ndarray]:
        """All totals by site, job and sum."""
        return {
            f"{self.names[index]}/{key}": total.cpu().numpy()
            for index, totals in self._totals.items()
            for key, total in totals.items()
        }

    def pending_is_finite(self) -> bool:
        """Whether the batch just seen holds numbers alone."""
        return all(bool(torch.isfinite(x).all()) for found in self._pending.values() for x in found.values())

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        index = {name: place for place, name in enumerate(self.names)}
        for key, array in arrays.items():
            name, rest = key.split("/", 1)
            self._totals.setdefault(index[name], {})[rest] = torch.from_numpy(array.copy())

    def moments(self) -> Moments:
        """All that was gathered."""
        found = Moments(units=int(self.units[-1]) + 1)
        for index, name in enumerate(self.names):
            sums = {key: total.cpu().numpy() for key, total in self._totals[index].items()}
            found.crossed[name] = [
                {variant: _crossed(sums, place, v) for v, variant in enumerate(job.variants)}
                for place, job in enumerate(self.jobs[name])
            ]
            value, block, position = (sums[f"top/{key}"].T for key in ("value", "block", "position"))
            found.top[name] = Top(value, block, position, sums["top/total"])
        return found


def _weights(q: torch.Tensor) -> torch.Tensor:
    """Of each token by each of VARIANTS: [B, 3, T] of q [B, T, m]."""
    # Weights from q as it is, up to one constant that keeps the squares in range.
    size = torch.linalg.vector_norm(q, dim=-1).square_()
    weighted = torch.where(size > 0, 1 / size, torch.zeros_like(size))
    later = (torch.arange(q.shape[1], device=q.device) >= 4).to(size).expand_as(size)
    return torch.stack([torch.ones_like(size), weighted, later], dim=1)


def _products(rows: torch.Tensor, cols: torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
    """Sums over each block's tokens of rows [B, T, R], columns [B, T, K] and their products."""
    blocks, variants, _ = weights.shape
    weighted = weights.mT.unsqueeze(-1) * cols.unsqueeze(2)  # [B, T, V, K]
    cross = rows.mT @ weighted.flatten(2)
    exact = _widest(rows.device)
    return {
        "cross": cross.view(blocks, rows.shape[-1], variants, cols.shape[-1]),
        "first_rows": (weights @ rows).to(exact),
        "first_cols": (weights @ cols).to(exact),
        "second_rows": (weights @ rows.square()).to(exact),
        "second_cols": (weights @ cols.square()).to(exact),
        "count": weights.sum(-1, dtype=exact),
    }


def _widest(device: torch.device) -> torch.dtype:
    """float64, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def _merge_top(totals: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> None:
    """Take the batch's top tokens out of ``found`` into ``totals``, of which the largest stay."""
    new = {key: found.pop(key) for key in list(found) if key.startswith("top/")}
    if "top/total" in totals:
        known = {key: totals[key].to(new[key].device) for key in new}
        value = torch.cat([known["top/value"], new["top/value"]])
        order = value.topk(min(TOP, len(value)), dim=0).indices
        for key in ("top/value", "top/block", "top/position"):
            new[key] = torch.cat([known[key], new[key]]).gather(0, order)
        new["top/total"] = known["top/total"] + new["top/total"]
    totals |= new


def _crossed(sums: Mapping[str, np.ndarray], place: int, v: int) -> Crossed:
    def of_variant(key: str) -> np.ndarray:
        part: np.ndarray = sums[f"{place}/{key}"][:, v]
        return part

    return Crossed(
        cross=sums[f"{place}/cross"][:, :, v],
        first=(of_variant("first_rows"), of_variant("first_cols")),
        second=(of_variant("second_rows"), of_variant("second_cols")),
        count=of_variant("count"),
    )
