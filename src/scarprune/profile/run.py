"""``profile_model``: one or two passes over the text, resumable, at the batch the memory allows."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import nn

from scarprune.errors import ArgumentError, UnsupportedModelError
from scarprune.models.context import context_length, vocabulary_size
from scarprune.models.find import find_sites
from scarprune.models.fingerprint import fingerprint_model
from scarprune.models.forward import device_of
from scarprune.models.site import Site
from scarprune.models.streamed import streamed_of
from scarprune.profile.accumulate import SumsPass
from scarprune.profile.assemble import assemble
from scarprune.profile.compiling import Compiled, resolve
from scarprune.profile.extras import COSTS, PASSES, check_extras, measure_extra
from scarprune.profile.groups import assign_groups
from scarprune.profile.passes import Run, begin, check, first_scale, prepared
from scarprune.profile.redundancy import CrossPass
from scarprune.profile.size import cross_bytes, sums_bytes
from scarprune.profile.state import Keeper, State
from scarprune.profile.statistics.statistic import statistics
from scarprune.profile.sums import Profile
from scarprune.profile.ways import refused
from scarprune.runtime.memory import bounded, frugal
from scarprune.runtime.ranks import ALONE, Ranks
from scarprune.runtime.size import parse_size
from scarprune.stats.select import floor_share, largest
from scarprune.text.blocks import Blocks
from scarprune.text.fit import check_fits

Labels = Literal["data", "model", "both"]
_KINDS: dict[str, tuple[str, ...]] = {"data": ("data",), "model": ("model",), "both": ("data", "model")}


@dataclass(frozen=True)
class _Wanted:
    kinds: tuple[str, ...]
    redundancy: bool
    rho: float
    seed: int
    mean_loss: bool = False
    extras: tuple[str, ...] = ()

    def tokens_left(self, state: State, lengths: np.ndarray, ranks: Ranks = ALONE) -> float:
        """Tokens this copy has still to take forward and backward; a second backward is half of one."""
        start, stop = ranks.share(lengths)
        costs = {1: 1.5 if len(self.kinds) == 2 else 1.0, 2: 1.0 if self.redundancy else 0.0}
        costs |= {PASSES[extra]: COSTS[extra] for extra in self.extras}
        done = float(lengths[start : state.next_block].sum())
        whole = sum(cost for number, cost in costs.items() if number >= state.phase)
        return whole * float(lengths[start:stop].sum()) - costs.get(state.phase, 0.0) * done


def profile_model(
    model: nn.Module,
    blocks: Blocks,
    *,
    batch: int | Literal["auto"] = "auto",
    redundancy: bool = True,
    labels: Labels = "data",
    extras: Sequence[str] = (),
    resume: str | Path | None = None,
    rho: float = 0.01,
    seed: int = 0,
    compiled: Compiled = "auto",
    mean_loss: bool = False,
    ranks: Ranks = ALONE,
    memory: int | str = "auto",
) -> Profile:
    """Measure every feed-forward channel of ``model`` on ``blocks`` (``method`` 1, 4, 5).

    Args:
        model: a causal language model on its device or devices; it is left as it was found.
        blocks: from ``read_blocks``; position 0 is a band of its own.
        batch: blocks at once; ``auto`` takes what fits and halves where memory runs out.
        redundancy: also walk the text a second time for the redundancy of every channel with the core.
        labels: ``data`` (the empirical Fisher of the paper), ``model`` (sampled labels), or ``both``.
        extras: what single scores need and each costs a pass of its own: ``entropy`` (forward and backward),
            ``gradient`` (the same with gradients of the weights, one block at a time), ``hessian`` (forward,
            layer by layer, and one inverse a site).
        resume: file that keeps the state of an unfinished run; where it is there, the run goes on from it.
        rho: share of a site's channels that make its core.
        seed: of the sampled labels.
        compiled: whether layers run under torch.compile with the sums inside; ``auto``: on a GPU where the
            text is long enough to win the compiler's time back. Where it fails, the rest runs without.
        mean_loss: divide each block's loss by its targets, as arXiv 2604.23475's code does; for its protocol
            alone (``method`` 11), since short blocks then outweigh long ones.
        ranks: from ``find_ranks``, the processes that take part: each calls this with all blocks, takes its
            share of them, and is given the whole profile.
        memory: bytes that may be in use on the model's device (on a CPU, by this process), or a size as
            ``"20GiB"``; ``auto`` is what is free. Where layers cannot keep what their backward pass needs,
            they keep their input alone, then batches shrink. A model whose weights are too large for that is
            loaded with ``load_model(..., streamed=True)``.

    Raises:
        UnsupportedModelError: no feed-forward network is recognised, or an extra cannot be measured on it.
        TextError: ids outside the vocabulary, blocks longer than the context or of one token.
        NumericsError: a loss or a sum is not finite.
        MemoryBudgetError: not even one block fits.
    """
    bound = None if memory == "auto" else parse_size(memory)
    kinds = _check_arguments(batch, labels, rho, blocks)
    wanted = _Wanted(kinds, redundancy, rho, seed, mean_loss, check_extras(extras, mean_loss, ranks))
    if wanted.extras and streamed_of(model) is not None:
        _refuse_extras(wanted.extras)
    sites = find_sites(model)
    check_fits(blocks, vocabulary_size(model), context_length(model.config))
    keeper = Keeper(None if resume is None else Path(resume), ranks)
    device, streamed = device_of(model), streamed_of(model) is not None
    with prepared(model), bounded(device, bound), frugal(device) if streamed else contextlib.nullcontext():
        with refused(bound, device):
            run = _begin(model, sites, blocks, wanted, batch, keeper, compiled, ranks, bound)
        profile = _measure(run, wanted)
    keeper.remove()
    return profile


def _begin(
    model: Any,
    sites: Sequence[Site],
    blocks: Blocks,
    wanted: _Wanted,
    batch: int | Literal["auto"],
    keeper: Keeper,
    compiled: Compiled,
    ranks: Ranks,
    bound: int | None,
) -> Run:
    """A run at its start, or where an earlier one stopped."""
    identity = {
        "weights": fingerprint_model(model),
        "text": blocks.fingerprint,
        "labels": list(wanted.kinds),
        "rho": wanted.rho,
        "seed": wanted.seed,
        "redundancy": wanted.redundancy,
        "mean_loss": wanted.mean_loss,
        "extras": list(wanted.extras),
        "dtype": str(model.dtype),
    }
    first = ranks.share(blocks.lengths)[0]
    state = keeper.load(identity) or State(identity, next_block=first, scale=first_scale(model))
    work = wanted.tokens_left(state, blocks.lengths, ranks)
    # The parts of a copy do the same: each has timed its own device.
    compiles = bool(ranks.least_of_copy(resolve(compiled, model, work / ranks.parts, 1 + wanted.redundancy)))
    return begin(
        model,
        sites,
        blocks,
        assign_groups(len(blocks), blocks.documents),
        state,
        keeper,
        batch=batch,
        totals=totals_bytes(sites, wanted.kinds, wanted.rho if wanted.redundancy else None),
        work=work,
        what="Profiling",
        seed=wanted.seed,
        compiled=bool(ranks.agree_on_copy(compiles)),
        mean_loss=wanted.mean_loss,
        ranks=ranks,
        bound=bound,
        labels=len(wanted.kinds),
    )


def _measure(run: Run, wanted: _Wanted) -> Profile:
    kinds, rho = wanted.kinds, wanted.rho
    totals = run.through(1, SumsPass(run.sites, statistics(), run.ranks), kinds)
    prefix = "" if "data" in kinds else "model/"
    core = {
        site.name: largest(totals[f"{site.name}/{prefix}sum_q2"].sum(0), _core_size(site, rho))
        for site in run.sites
    }
    cross = run.through(2, CrossPass(run.sites, core, run.ranks), kinds[:1]) if wanted.redundancy else None
    for extra in wanted.extras:
        totals |= measure_extra(run, extra)
    profile = assemble(
        run.model, run.sites, run.blocks, run.groups, totals, core, cross, kinds, rho, run.seed
    )
    profile.header["provenance"]["compiled"] = run.compiling.on
    if wanted.mean_loss:
        profile.header["loss"] = "mean"
    if run.ranks.count > 1:
        profile.header["provenance"] |= {"processes": run.ranks.count, "parts": run.ranks.parts}
    return profile


def _core_size(site: Site, rho: float) -> int:
    return max(1, floor_share(rho, site.width))


def kinds_of(labels: str) -> tuple[str, ...]:
    """The kinds of labels that ``labels`` stands for.

    Raises:
        ArgumentError: it is none of data, model, both.
    """
    if labels not in _KINDS:
        raise ArgumentError(f"labels must be data, model or both, not {labels!r}.")
    return _KINDS[labels]


def _check_arguments(batch: int | str, labels: str, rho: float, blocks: Blocks) -> tuple[str, ...]:
    kinds = kinds_of(labels)
    if not 0 < rho < 1:
        raise ArgumentError(f"rho must lie between 0 and 1, not {rho}.")
    check(batch, blocks)
    return kinds


def _refuse_extras(extras: Sequence[str]) -> None:
    whole = [extra for extra in extras if extra != "entropy"]
    if whole:
        raise UnsupportedModelError(
            f"{whole[0]!r} needs the whole model in memory, and this one's layers are streamed.",
            hint="Leave that extra out, or use more --memory.",
        )


def totals_bytes(sites: Sequence[Site], kinds: Sequence[str], rho: float | None) -> int:
    """Memory of the sums of pass 1 for ``kinds`` of labels, and of pass 2 where the core has a ``rho``."""
    widths = [site.width for site in sites]
    if rho is None:
        return sums_bytes(widths, len(kinds))
    return sums_bytes(widths, len(kinds)) + cross_bytes(widths, [_core_size(site, rho) for site in sites])
