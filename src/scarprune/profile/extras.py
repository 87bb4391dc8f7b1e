"""Extra passes (``sums.EXTRAS``): what single scores need and pass 1 does not give, measured where asked."""

from collections.abc import Sequence

import numpy as np

from scarprune.errors import ArgumentError
from scarprune.profile.entropy import EntropyPass
from scarprune.profile.gradient import gradient_sums, sums_bytes, waves
from scarprune.profile.hessian import MATRICES, hessian_sums
from scarprune.profile.passes import Run
from scarprune.profile.sums import EXTRAS
from scarprune.runtime.memory import available_bytes, gib
from scarprune.runtime.progress import remark, track
from scarprune.runtime.ranks import Ranks

PASSES = {"entropy": 3, "gradient": 4, "hessian": 5}
# Of a forward and backward pass; a gradient pass is one such for each run of sites whose sums fit.
COSTS = {"entropy": 1.0, "gradient": 1.5, "hessian": 1.0}
_OF_ONE_PROCESS = {"gradient", "hessian"}  # not sums over blocks that follow from the processes' own


def check_extras(extras: Sequence[str], mean_loss: bool, ranks: Ranks) -> tuple[str, ...]:
    """``extras`` in the order of their passes.

    Raises:
        ArgumentError: one is unknown, or not measured beside ``mean_loss`` or by several processes.
    """
    for extra in extras:
        if extra not in EXTRAS:
            raise ArgumentError(f"An extra is one of {', '.join(EXTRAS)}, not {extra!r}.")
    if extras and mean_loss:
        raise ArgumentError("Extras are not measured with mean_loss=True, which is for the paper's protocol.")
    for extra in sorted(set(extras) & _OF_ONE_PROCESS):
        if ranks.count > 1:
            raise ArgumentError(
                f"The extra {extra} is measured by one process alone, not by {ranks.count}.",
                hint="Leave it out here and measure it without torchrun.",
            )
    return tuple(extra for extra in EXTRAS if extra in extras)


def measure_extra(run: Run, extra: str) -> dict[str, np.ndarray]:
    """The totals of an extra pass; ``entropy`` goes on where it was interrupted, the others begin again."""
    number = PASSES[extra]
    if extra == "entropy":
        return run.through(number, EntropyPass(run.sites, run.ranks), ("entropy",))
    if run.state.phase > number:
        return run.state.of_pass(number)
    totals = _gradients(run, number) if extra == "gradient" else _hessians(run, number)
    run.finish(number, totals)
    run.keeper.keep(run.state)
    return totals


def _gradients(run: Run, number: int) -> dict[str, np.ndarray]:
    totals: dict[str, np.ndarray] = {}
    runs = waves(run.sites, available_bytes(run.device))
    largest = max(sum(map(sums_bytes, sites)) for sites in runs)
    at_once = f"{len(runs[0])} of {len(run.sites)} sites at once"
    remark(f"Gradients of the weights: {at_once}, {gib(largest)} of sums.")
    with track(f"Pass {number}", len(runs) * int(run.blocks.lengths.sum())) as advance:
        for sites in runs:
            totals |= gradient_sums(run.head, sites, run.blocks, run.vocabulary, run.state.scale, advance)
    return totals


def _hessians(run: Run, number: int) -> dict[str, np.ndarray]:
    widest = max(site.width for site in run.sites)
    remark(f"Hessians: {gib(MATRICES * 8 * widest**2)} for the matrices of one site.")
    with track(f"Pass {number}", len(run.sites), "sites") as advance:
        return hessian_sums(run.model, run.blocks, run.state.batch, advance)
