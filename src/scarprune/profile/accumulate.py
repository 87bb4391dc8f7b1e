"""Pass 1: from the u and s of a batch to running float64 totals per channel (``method`` 1)."""

import functools
from collections.abc import Sequence

import numpy as np
import torch

from scarprune.models.site import Site
from scarprune.profile.input_sums import input_sums
from scarprune.profile.site_sums import LABELLED_ROWS, gated_sums, has_kernel, shared_rows, site_sums
from scarprune.profile.statistics.statistic import Statistic
from scarprune.profile.sums import GROUPS
from scarprune.profile.totals import Kept, add_channels, all_channels
from scarprune.profile.watch import Look, blank
from scarprune.runtime.device import to_device, to_numpy
from scarprune.runtime.ranks import ALONE, Ranks

_SIZES = ("sum_q2", "sum_u2")  # nothing in them cancels
# How a sum grows with the loss: u and s enter to these powers of s.
_POWERS = {"sum_s": 1, "sum_q": 1, "sum_abs_q": 1, "sum_q4": 4, "block_q2_squared": 4, "groups_G": 1}


def _exact(device: torch.device) -> torch.dtype:
    """float64; float32 where a device has no other."""
    return torch.float32 if device.type == "mps" else torch.float64


class SumsPass(Kept):
    """Totals of every site, all that pass 1 keeps.

    Attributes:
        labels: the kind of labels of the backward pass to come.
        with_u: whether what depends on u alone is taken from it: once a batch is enough.
    """

    def __init__(self, sites: Sequence[Site], statistics: Sequence[Statistic], ranks: Ranks = ALONE) -> None:
        super().__init__(sites, ranks)
        self.labels = "data"
        self.with_u = True
        self.reduce = functools.partial(site_sums, statistics=statistics)
        self.reduce_gated = functools.partial(gated_sums, statistics=statistics)
        self._statistics = statistics
        self.reduce_input = input_sums
        self._membership = torch.empty(0)
        self._members_on: dict[torch.device, torch.Tensor] = {}
        self._rows = {
            "data": LABELLED_ROWS,
            "model": LABELLED_ROWS,
            "shared": shared_rows(statistics),
            "input": (("sum_x2", 1),),
        }
        self._labelled = sum(count for _, count in LABELLED_ROWS)
        self._shared = sum(count for _, count in self._rows["shared"])

    # -- one batch ---------------------------------------------------------------------------------

    def prepare(self, index: int, look: Look) -> None:
        """Make what a site needs, on its device; where that has kernels, they are used."""
        device = look.u.device
        if has_kernel(look.u.dtype, device):
            self.reduce = functools.partial(site_sums, statistics=self._statistics, kernel_on=device.type)
            self.reduce_input = functools.partial(input_sums, kernel_on=device.type)
        super().prepare(index, look)

    def begin(self, groups: np.ndarray, tokens: int) -> None:
        """Forget what an unfinished batch left; expect blocks of ``tokens``, each of the group given."""
        self._pending.clear()
        self._members_on.clear()
        self._membership = torch.from_numpy(groups[None] == np.arange(GROUPS)[:, None])
        self.renew()

    def blank(self, index: int, u: torch.Tensor) -> torch.Tensor:
        """[rows, m] in the dtype of totals."""
        return blank((self._labelled + self._shared, u.shape[-1]), _exact(u.device), u.device)

    def given(self, index: int, device: torch.device) -> tuple[torch.Tensor, ...]:
        """Which block is of which group: copied to each device once a batch."""
        if device not in self._members_on:
            self._members_on[device] = to_device(self._membership.to(_exact(device)), device)
        return (self._members_on[device],)

    def take(self, index: int, sums: torch.Tensor) -> None:
        """The sums of a batch at one site, [rows, m] of ``site_sums``."""
        self._pending[index, self.labels] = sums[: self._labelled]
        if self.with_u:
            self._pending[index, "shared"] = sums[self._labelled :]

    def sizes(self) -> dict[str, float]:
        """Of the batch just seen, sums over all channels here that cannot cancel (waits for the device)."""
        sizes = {}
        for (index, kind), rows in self._pending.items():
            start = 0
            for name, count in self._rows[kind]:
                if name in _SIZES:
                    sizes[self._prefix(index, kind) + name] = float(rows[start : start + count].sum())
                start += count
        return sizes

    # -- totals ------------------------------------------------------------------------------------

    def commit(self, scale: float = 1.0) -> None:
        """Add the batch to the totals; ``scale`` is the power of two the loss was multiplied by."""
        seen = sorted({index for index, _ in self._pending})  # one site's, where layers are taken one by one
        places = ((index, self.places[index].inputs) for index in seen)
        # A copy: the next batch writes to the same place, and float64 numbers become no others below.
        inputs = {(index, "input"): sums[None].clone() for index, sums in places if sums is not None}
        for key, pending in (self._pending | inputs).items():
            # Apple's MPS has no float64: its totals are kept on the CPU.
            batch = (pending.cpu() if pending.device.type == "mps" else pending).double()
            if scale != 1.0 and key[1] in ("data", "model"):
                batch = batch / torch.tensor(_growth(scale), dtype=torch.float64, device=batch.device)
            known = self._totals.get(key)
            self._totals[key] = batch if known is None else add_channels(known, batch, 1, self.ranks)
        self._pending.clear()

    def arrays(self) -> dict[str, np.ndarray]:
        """All totals, float64, keyed and shaped as in the profile: the parts of a copy call it together."""
        out = {}
        for (index, kind), total in sorted(self._totals.items()):
            site, prefix = self.sites[index], self._prefix(index, kind)
            rows = to_numpy(total) if kind == "input" else all_channels(total, 1, site, self.ranks)
            start = 0
            for name, count in self._rows[kind]:
                out[prefix + name] = rows[start] if count == 1 else rows[start : start + count]
                start += count
        return out

    def _prefix(self, index: int, kind: str) -> str:
        return f"{self.sites[index].name}/" + ("model/" if kind == "model" else "")

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from totals that ``arrays`` gave, and from no others."""
        self._totals.clear()
        for index in range(len(self.sites)):
            for kind, rows in self._rows.items():
                prefix = self._prefix(index, kind)
                if prefix + rows[0][0] in arrays:
                    parts = [np.atleast_2d(arrays[prefix + name]) for name, _ in rows]
                    self._totals[index, kind] = torch.from_numpy(np.concatenate(parts))


def _growth(scale: float) -> list[list[float]]:
    """By how much each labelled row grows when the loss is multiplied by ``scale``: [rows][1]."""
    return [[scale ** _POWERS.get(name, 2)] for name, count in LABELLED_ROWS for _ in range(count)]
