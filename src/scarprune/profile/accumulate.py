"""Pass 1: from the u and s of a batch to running float64 totals per channel (``method`` 1)."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from scarprune.models.site import Site
from scarprune.profile.statistics.statistic import Statistic
from scarprune.profile.sums import ACTIVATION_GROUPS, BANDED, BANDED_LABELLED, BANDS, GROUPS

# Order of the rows that one reduction gives: sums that depend on the labels, then those of u alone.
_LABELLED_ROWS = len(BANDED_LABELLED)
_S, _Q, _Q2 = (BANDED_LABELLED.index(name) for name in ("sum_s", "sum_q", "sum_q2"))
_CACHED_ELEMENTS = 1 << 15
_U2 = _LABELLED_ROWS + BANDED.index("sum_u2")

Partial = dict[str, torch.Tensor]


def wide(x: torch.Tensor) -> torch.Tensor:
    """``x`` in float32, or as it is where it is wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def reduce_tokens(u: torch.Tensor, s: torch.Tensor, with_u: bool) -> torch.Tensor:
    """All sums over tokens that one pair u, s [B, T, m] gives: float32 [rows, B, m].

    One read of u and s where a compiler fuses it: about 20 operations and two loads per element.
    """
    u, s = wide(u), wide(s)
    q = u * s
    q2 = q * q
    rows = [s.sum(1), (s * s).sum(1), q.sum(1), q.abs().sum(1), q2.sum(1), (q2 * q2).sum(1), (q * s).sum(1)]
    if with_u:
        rows += [u.sum(1), (u * u).sum(1)]
    return torch.stack(rows)


def _by_block(u: torch.Tensor, s: torch.Tensor, with_u: bool) -> torch.Tensor:
    """``reduce_tokens`` one block at a time, so that a CPU's temporaries stay in its cache."""
    if u[0].numel() < _CACHED_ELEMENTS:
        return reduce_tokens(u, s, with_u)
    return torch.cat([reduce_tokens(u[b : b + 1], s[b : b + 1], with_u) for b in range(len(u))], dim=1)


class SumsPass:
    """Totals of every site; a batch counts wholly once ``commit`` is called, and not at all before.

    That makes a batch repeatable: out of memory or Ctrl-C in the middle of it leaves the totals as they were.
    """

    def __init__(
        self, sites: Sequence[Site], statistics: Sequence[Statistic], *, compiled: bool = False
    ) -> None:
        self.sites = sites
        self.statistics = statistics
        self.labels = "data"
        self.with_u = True
        self.shape = (0, 0)
        self._pending: dict[tuple[int, str], Partial] = {}
        self._totals: dict[str, torch.Tensor] = {}
        self._compiled: Callable[[torch.Tensor, torch.Tensor, bool], torch.Tensor] | None = None
        if compiled:
            self._compiled = torch.compile(reduce_tokens, dynamic=False)

    # -- one batch ---------------------------------------------------------------------------------

    def begin(self, batch: int, tokens: int) -> None:
        """Forget what an unfinished batch left and expect ``batch`` blocks of ``tokens``."""
        self._pending.clear()
        self.shape = (batch, tokens)

    def observe(self, index: int, u: torch.Tensor, s: torch.Tensor) -> None:
        """See the u and s of one site, [B, T, m] or flattened to [B T, m]."""
        u, s = u.reshape(*self.shape, -1), s.reshape(*self.shape, -1)
        reduce = self._compiled or reduce_tokens
        if u.device.type == "cpu":
            reduce = _by_block
        bands = torch.stack([reduce(u[:, lo:hi], s[:, lo:hi], self.with_u) for lo, hi in BANDS])
        blocks = bands.sum(0)
        partial = {"bands": bands.sum(2), "blocks": blocks}  # [3, rows, m] and [rows, B, m]
        if self.with_u:
            floats = wide(u)
            partial |= {item.name: item.of_blocks(floats, blocks[_U2]) for item in self.statistics}
        self._pending[index, self.labels] = partial

    def observe_input(self, index: int, x: torch.Tensor) -> None:
        """See the input of one site's network, [..., d]."""
        self._pending[index, "input"] = {"sum_x2": wide(x).square().flatten(0, -2).sum(0)}

    # -- totals ------------------------------------------------------------------------------------

    def commit(self, groups: np.ndarray, scale: float = 1.0) -> None:
        """Add the batch to the totals; ``groups`` holds the group of each of its blocks.

        ``scale`` is the power of two the loss was multiplied by; the totals are those of the plain loss.
        """
        for (index, kind), partial in self._pending.items():
            prefix = self.sites[index].name + "/"
            if kind == "input":
                self._add(prefix + "sum_x2", partial["sum_x2"])
                continue
            labelled = prefix + ("model/" if kind == "model" else "")
            self._commit_bands(prefix, labelled, partial["bands"], scale)
            self._commit_blocks(prefix, labelled, partial["blocks"], groups, scale)
            for item in self.statistics:
                if item.name in partial:
                    self._add(prefix + item.name, partial[item.name])
        self._pending.clear()

    def _commit_bands(self, prefix: str, labelled: str, bands: torch.Tensor, scale: float) -> None:
        for row, name in enumerate(BANDED_LABELLED):
            power = {"sum_s": 1, "sum_q": 1, "sum_abs_q": 1, "sum_q4": 4}.get(name, 2)
            self._add(labelled + name, bands[:, row], scale**-power)
        if bands.shape[1] > _LABELLED_ROWS:
            for row, name in enumerate(BANDED):
                self._add(prefix + name, bands[:, _LABELLED_ROWS + row])

    def _commit_blocks(
        self, prefix: str, labelled: str, blocks: torch.Tensor, groups: np.ndarray, scale: float
    ) -> None:
        big_g, big_s, q2 = (self._double(blocks[row]) for row in (_Q, _S, _Q2))
        big_g, big_s, q2 = big_g / scale, big_s / scale, q2 / scale**2
        self._add(labelled + "block_G2", big_g.square().sum(0))
        self._add(labelled + "block_GS", (big_g * big_s).sum(0))
        self._add(labelled + "block_S2", big_s.square().sum(0))
        self._add(labelled + "block_q2_squared", q2.square().sum(0))
        self._add_groups(labelled + "groups_q2", q2, groups, GROUPS)
        self._add_groups(labelled + "groups_G", big_g, groups, GROUPS)
        if len(blocks) > _LABELLED_ROWS:
            coarse = groups * ACTIVATION_GROUPS // GROUPS
            self._add_groups(prefix + "groups_u2", self._double(blocks[_U2]), coarse, ACTIVATION_GROUPS)

    def _add(self, key: str, value: torch.Tensor, factor: float = 1.0) -> None:
        value = self._double(value) * factor
        known = self._totals.get(key)
        self._totals[key] = value if known is None else known.to(value.device).add_(value)

    def _add_groups(self, key: str, rows: torch.Tensor, groups: np.ndarray, count: int) -> None:
        total = rows.new_zeros(count, rows.shape[-1])
        self._add(key, total.index_add_(0, torch.from_numpy(groups).to(rows.device), rows))

    @staticmethod
    def _double(value: torch.Tensor) -> torch.Tensor:
        """float64 where the value lies; Apple's MPS has none, so there on the CPU."""
        return (value.cpu() if value.device.type == "mps" else value).double()

    def arrays(self) -> dict[str, np.ndarray]:
        """All totals, float64, keyed as in the profile."""
        return {key: total.cpu().numpy() for key, total in self._totals.items()}

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from totals that ``arrays`` gave."""
        self._totals = {key: torch.from_numpy(array.copy()) for key, array in arrays.items()}

    def pending_is_finite(self) -> bool:
        """Whether the batch just seen holds numbers alone (asks the device, and so waits for it)."""
        tensors = [tensor for partial in self._pending.values() for tensor in partial.values()]
        return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
