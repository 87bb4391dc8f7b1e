"""One pass over text that keeps cross moments of q by unit of blocks, and the tokens that q rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from scarprune.errors import NumericsError
from scarprune.models.context import context_length, vocabulary_size
from scarprune.models.find import find_sites
from scarprune.models.head import find_head
from scarprune.profile.accumulate import wide
from scarprune.profile.loss import loss_gradient
from scarprune.profile.run import prepared
from scarprune.profile.watch import watching
from scarprune.runtime.progress import track
from scarprune.text.blocks import Blocks
from scarprune.text.fit import check_fits

UNITS = 32
FEWEST_UNITS = 8
VARIANTS = ("plain", "token_weighted", "without_first_4")
TOP = 5
_HALF_PRECISION_SCALE = 4096.0


@dataclass
class Job:
    """Channels ``rows`` crossed with channels ``cols``; ``variants`` of which tokens count how much."""

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
    """4 bytes * units * sum over jobs and variants of R * K: 1.5 GB for 32 sites of 14,336, cores of 143."""
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
) -> Moments:
    """Walk ``blocks`` once with data labels and gather what ``jobs`` ask for (``method`` 10).

    q is divided by its channel's ``rms`` [m]: no correlation depends on it, and float32 stays in range.

    Raises:
        TextError: ids outside the vocabulary or blocks beyond the context.
        NumericsError: a q is not finite.
    """
    check_fits(blocks, vocabulary_size(model), context_length(model.config))
    sites = find_sites(model)
    walker = _Walker([site.name for site in sites], jobs, core, rms, unit_of_blocks(len(blocks)))
    walker.scale = _HALF_PRECISION_SCALE if model.dtype == torch.float16 else 1.0
    head, vocabulary = find_head(model), vocabulary_size(model)
    size = 4 if batch == "auto" else batch
    with (
        prepared(model),
        watching(model, sites, walker.observe),
        track("Halo", int(blocks.lengths.sum())) as advance,
    ):
        start = 0
        while start < len(blocks):
            stop = start + 1
            while (
                stop < len(blocks) and stop - start < size and blocks.lengths[stop] == blocks.lengths[start]
            ):
                stop += 1
            ids = torch.from_numpy(blocks.ids[start:stop, : int(blocks.lengths[start])])
            walker.rows = np.arange(start, stop)
            with torch.enable_grad():
                hidden = head.hidden(ids)
            result = loss_gradient(head, hidden, ids, ("data",), None, vocabulary, walker.scale)
            torch.autograd.backward(hidden, result.gradient["data"])
            advance(int(blocks.lengths[start:stop].sum()))
            start = stop
    return walker.moments()


class _Walker:
    """What sees u and s of each site, block by block."""

    def __init__(
        self,
        names: Sequence[str],
        jobs: Mapping[str, Sequence[Job]],
        core: Mapping[str, np.ndarray],
        rms: Mapping[str, np.ndarray],
        units: np.ndarray,
    ) -> None:
        self.names, self.jobs, self.core, self.units = names, jobs, core, units
        self.rms = {name: np.where(rms[name] > 0, rms[name], 1.0) for name in names}
        self.rows, self.scale = np.arange(0), 1.0
        count = int(units[-1]) + 1
        self.crossed = {
            name: [
                {
                    variant: Crossed(
                        np.zeros((count, len(job.rows), len(job.cols)), np.float32),
                        (np.zeros((count, len(job.rows))), np.zeros((count, len(job.cols)))),
                        (np.zeros((count, len(job.rows))), np.zeros((count, len(job.cols)))),
                        np.zeros(count),
                    )
                    for variant in job.variants
                }
                for job in jobs[name]
            ]
            for name in names
        }
        self.seen: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {name: [] for name in names}
        self.total = {name: np.zeros(len(core[name])) for name in names}

    def observe(self, index: int, u: torch.Tensor, s: torch.Tensor) -> None:
        """See u and s of one site, of the blocks ``rows``."""
        name = self.names[index]
        flat = (wide(u) * (wide(s) / self.scale)).reshape(len(self.rows), -1, u.shape[-1])[:, :-1]
        if not bool(torch.isfinite(flat).all()):
            raise NumericsError(
                f"The gradient at {name} overflowed.", hint="Try --dtype bfloat16 or float32."
            )
        rms = torch.from_numpy(self.rms[name]).to(flat)
        q = flat / rms
        # Weights of tokens from q as it is, up to one constant that keeps the squares in range.
        weight = torch.square(flat / rms.max()).sum(-1)
        weight = torch.where(weight > 0, 1 / weight, torch.zeros_like(weight))
        for row, block in enumerate(self.rows):
            unit = int(self.units[block])
            for job, kept in zip(self.jobs[name], self.crossed[name], strict=True):
                for variant, sums in kept.items():
                    _add(sums, unit, job, q[row], weight[row], variant)
            self._top(name, q[row], int(block))

    def _top(self, name: str, q: torch.Tensor, block: int) -> None:
        core = self.core[name]
        squares = q[:, torch.from_numpy(core).to(q.device)].square()
        self.total[name] += squares.double().sum(0).cpu().numpy()
        value, position = squares.topk(min(TOP, len(squares)), dim=0)
        self.seen[name].append(
            (value.T.cpu().numpy(), np.full(value.T.shape, block), position.T.cpu().numpy())
        )
        if len(self.seen[name]) >= 16:
            self.seen[name] = [_largest_of(self.seen[name])]

    def moments(self) -> Moments:
        """All that was gathered."""
        top = {
            name: Top(*_largest_of(seen), total=self.total[name]) for name, seen in self.seen.items() if seen
        }
        return Moments(units=int(self.units[-1]) + 1, crossed=self.crossed, top=top)


def _add(sums: Crossed, unit: int, job: Job, q: torch.Tensor, weight: torch.Tensor, variant: str) -> None:
    rows = q[:, torch.from_numpy(job.rows).to(q.device)]
    cols = q[:, torch.from_numpy(job.cols).to(q.device)]
    weights = torch.ones_like(weight)
    if variant == "token_weighted":
        weights = weight
    elif variant == "without_first_4":
        weights[:4] = 0
    for place, values in enumerate((rows, cols)):
        sums.first[place][unit] += (values * weights[:, None]).double().sum(0).cpu().numpy()
        sums.second[place][unit] += (values.square() * weights[:, None]).double().sum(0).cpu().numpy()
    sums.cross[unit] += ((rows * weights[:, None]).T @ cols).cpu().numpy()
    sums.count[unit] += float(weights.double().sum())


def _largest_of(
    seen: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    value, block, position = (np.concatenate(parts, axis=1) for parts in zip(*seen, strict=True))
    order = np.argsort(-value, axis=1, kind="stable")[:, :TOP]
    first, second, third = (np.take_along_axis(a, order, axis=1) for a in (value, block, position))
    return first, second, third
