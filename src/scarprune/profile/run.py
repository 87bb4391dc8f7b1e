"""``profile_model``: one or two passes over the text, resumable, at the batch the memory allows."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from scarprune.errors import ArgumentError, MemoryBudgetError, NumericsError, TextError
from scarprune.models.context import context_length, vocabulary_size
from scarprune.models.find import find_sites
from scarprune.models.fingerprint import fingerprint_model
from scarprune.models.head import Head, find_head
from scarprune.models.site import Site
from scarprune.profile.accumulate import SumsPass
from scarprune.profile.assemble import assemble
from scarprune.profile.estimate import Memory, estimate_memory, expected_seconds
from scarprune.profile.groups import assign_groups
from scarprune.profile.loss import block_uniforms, loss_gradient
from scarprune.profile.redundancy import CrossPass
from scarprune.profile.state import Keeper, State
from scarprune.profile.statistics.statistic import statistics
from scarprune.profile.sums import Profile
from scarprune.profile.watch import watching
from scarprune.runtime.memory import gib, is_out_of_memory, release_cached
from scarprune.runtime.progress import duration, remark, track
from scarprune.stats.select import floor_share, largest
from scarprune.text.blocks import Blocks
from scarprune.text.fit import check_fits

Labels = Literal["data", "model", "both"]
_KINDS: dict[str, tuple[str, ...]] = {"data": ("data",), "model": ("model",), "both": ("data", "model")}
_HALF_PRECISION_SCALE = 4096.0  # keeps float16 gradients of 1e-6 out of the subnormal numbers
# Fusing the sums saves about a tenth of a pass and costs some seconds of compiling.
_OPERATIONS_WORTH_COMPILING = 4e16  # about two minutes of an H100


@dataclass(frozen=True)
class _Wanted:
    kinds: tuple[str, ...]
    redundancy: bool
    rho: float
    seed: int

    def tokens_left(self, state: State, lengths: np.ndarray) -> float:
        """Tokens still to take forward and backward, over both passes; a second backward is half of one."""
        left = float(lengths[state.next_block :].sum())
        if state.phase == 2:
            return left
        return left * (1.5 if len(self.kinds) == 2 else 1.0) + (lengths.sum() if self.redundancy else 0)


@dataclass
class _Run:
    model: nn.Module
    head: Head
    sites: Sequence[Site]
    blocks: Blocks
    groups: np.ndarray
    device: torch.device
    vocabulary: int
    seed: int
    fused: bool
    may_halve: bool
    keeper: Keeper
    state: State

    # -- one pass ----------------------------------------------------------------------------------

    def walk(self, number: int, observer: SumsPass | CrossPass, kinds: Sequence[str]) -> None:
        """Take every block from ``state.next_block`` on through the model and ``observer``."""
        observe_input = observer.observe_input if isinstance(observer, SumsPass) else None
        tokens = self.blocks.lengths
        done = int(tokens[: self.state.next_block].sum())
        self.state.phase = number
        with (
            watching(self.model, self.sites, observer.observe, observe_input),
            track(f"Pass {number}", int(tokens.sum()), done=done) as advance,
        ):
            while self.state.next_block < len(self.blocks):
                rows = self._next_rows()
                if not self._attempt(observer, kinds, rows):
                    continue
                observer.commit(self.state.scale)
                self.state.next_block = int(rows[-1]) + 1
                advance(int(tokens[rows].sum()))
                if self.keeper.due():
                    self._keep(number, observer)
        _refuse_non_finite(observer.arrays())

    def _next_rows(self) -> np.ndarray:
        """The next blocks to take at once: up to ``batch`` neighbours of one length."""
        start, lengths = self.state.next_block, self.blocks.lengths
        stop = start + 1
        while stop < len(lengths) and stop - start < self.state.batch and lengths[stop] == lengths[start]:
            stop += 1
        return np.arange(start, stop)

    def _attempt(self, observer: SumsPass | CrossPass, kinds: Sequence[str], rows: np.ndarray) -> bool:
        """Run one batch into the observer's pending sums; False where it must be tried again with less."""
        try:
            self._batch(observer, kinds, rows)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            failed = error.with_traceback(None)  # the frames of the failed batch hold its activations
        else:
            return self._scale_held(observer)
        if not self.may_halve or self.state.batch == 1:
            raise MemoryBudgetError(
                f"A batch of {len(rows)} blocks of {self.blocks.lengths[rows[0]]} tokens does not fit.",
                hint="Use --batch auto, shorter blocks (--length) or a smaller dtype.",
            ) from failed
        self.state.batch = max(1, self.state.batch // 2)
        release_cached(self.device)
        remark(f"Out of memory: going on with {self.state.batch} blocks at once.")
        return False

    def _batch(self, observer: SumsPass | CrossPass, kinds: Sequence[str], rows: np.ndarray) -> None:
        length = int(self.blocks.lengths[rows[0]])
        ids = torch.from_numpy(self.blocks.ids[rows, :length])
        observer.begin(self.groups[rows], length)
        draws = block_uniforms(self.seed, rows.tolist(), length - 1) if "model" in kinds else None
        with torch.enable_grad():
            hidden = self.head.hidden(ids)
        result = loss_gradient(self.head, hidden, ids, kinds, draws, self.vocabulary, self.state.scale)
        for kind in kinds:
            if isinstance(observer, SumsPass):
                observer.labels, observer.with_u = kind, kind == kinds[0]
            torch.autograd.backward(hidden, result.gradient[kind], retain_graph=kind != kinds[-1])

    def _scale_held(self, observer: SumsPass | CrossPass) -> bool:
        """In float16, whether nothing overflowed; where it did, the scale shrinks for another try."""
        if self.state.scale == 1.0 or observer.pending_is_finite():
            return True
        self.state.scale = max(1.0, self.state.scale / 16)
        return False

    def _keep(self, number: int, observer: SumsPass | CrossPass) -> None:
        others = {key: a for key, a in self.state.arrays.items() if not key.startswith(f"{number}/")}
        self.state.arrays = others | {f"{number}/{key}": a for key, a in observer.arrays().items()}
        self.keeper.keep(self.state)


def profile_model(
    model: nn.Module,
    blocks: Blocks,
    *,
    batch: int | Literal["auto"] = "auto",
    redundancy: bool = True,
    labels: Labels = "data",
    resume: str | Path | None = None,
    rho: float = 0.01,
    seed: int = 0,
    compiled: bool | Literal["auto"] = "auto",
) -> Profile:
    """Measure every feed-forward channel of ``model`` on ``blocks`` (``method`` 1, 4, 5).

    Args:
        model: a causal language model on its device or devices; it is left as it was found.
        blocks: from ``read_blocks``; position 0 is a band of its own.
        batch: blocks at once; ``auto`` takes what fits and halves where memory runs out.
        redundancy: also walk the text a second time for the redundancy of every channel with the core.
        labels: ``data`` (the empirical Fisher of the paper), ``model`` (sampled labels), or ``both``.
        resume: file that keeps the state of an unfinished run; where it is there, the run goes on from it.
        rho: share of a site's channels that make its core.
        seed: of the sampled labels.
        compiled: whether torch.compile fuses the sums (a GPU's gain; ``auto`` where the text is long enough).

    Raises:
        UnsupportedModelError: no feed-forward network is recognised.
        TextError: ids outside the vocabulary, blocks longer than the context or of one token.
        NumericsError: a loss or a sum is not finite.
        MemoryBudgetError: not even one block fits.
    """
    kinds = _check_arguments(batch, labels, rho, blocks)
    wanted = _Wanted(kinds, redundancy, rho, seed)
    sites = find_sites(model)
    check_fits(blocks, vocabulary_size(model), context_length(model.config))
    keeper = Keeper(None if resume is None else Path(resume))
    with prepared(model):
        profile = _measure(_begin(model, sites, blocks, wanted, batch, keeper, compiled), wanted)
    keeper.remove()
    return profile


def _begin(
    model: Any,
    sites: Sequence[Site],
    blocks: Blocks,
    wanted: _Wanted,
    batch: int | Literal["auto"],
    keeper: Keeper,
    compiled: bool | Literal["auto"],
) -> _Run:
    """A run at its start, or where an earlier one stopped, with its batch chosen and its cost said."""
    identity = {
        "weights": fingerprint_model(model),
        "text": blocks.fingerprint,
        "labels": list(wanted.kinds),
        "rho": wanted.rho,
        "seed": wanted.seed,
        "redundancy": wanted.redundancy,
        "dtype": str(model.dtype),
    }
    state = keeper.load(identity) or State(identity, scale=_first_scale(model))
    devices = (p.device for p in model.parameters() if p.device.type != "meta")
    device = next(devices, torch.device("cpu"))  # all weights are meta where all are offloaded
    fused = _worth_compiling(model, blocks, device) if compiled == "auto" else bool(compiled)
    head, vocabulary = find_head(model), vocabulary_size(model)
    memory = estimate_memory(model, head, sites, device, vocabulary, _totals_bytes(sites, wanted), fused)
    if not state.batch:
        length = int(blocks.lengths.max())
        state.batch = memory.largest_batch(length, len(blocks), device) if batch == "auto" else batch
    _say_before(model, blocks, memory, state, device, wanted.tokens_left(state, blocks.lengths))
    return _Run(
        model=model,
        head=head,
        sites=sites,
        blocks=blocks,
        groups=assign_groups(len(blocks), blocks.documents),
        device=device,
        vocabulary=vocabulary,
        seed=wanted.seed,
        fused=fused,
        may_halve=batch == "auto",
        keeper=keeper,
        state=state,
    )


def _measure(run: _Run, wanted: _Wanted) -> Profile:
    kinds, rho = wanted.kinds, wanted.rho
    sums = SumsPass(run.sites, statistics(), compiled=run.fused)
    sums.restore(run.state.of_pass(1))
    if run.state.phase == 1:
        run.walk(1, sums, kinds)
        run.state.next_block = 0
    totals = sums.arrays()
    prefix = "" if "data" in kinds else "model/"
    core = {
        site.name: largest(totals[f"{site.name}/{prefix}sum_q2"].sum(0), _core_size(site, rho))
        for site in run.sites
    }
    cross = None
    if wanted.redundancy:
        run.state.arrays |= {f"1/{key}": array for key, array in totals.items()}
        second = CrossPass(run.sites, core)
        second.restore(run.state.of_pass(2))
        run.walk(2, second, kinds[:1])
        cross = second.arrays()
    return assemble(run.model, run.sites, run.blocks, run.groups, totals, core, cross, kinds, rho, run.seed)


def _core_size(site: Site, rho: float) -> int:
    return max(1, floor_share(rho, site.width))


def _check_arguments(batch: int | str, labels: str, rho: float, blocks: Blocks) -> tuple[str, ...]:
    if labels not in _KINDS:
        raise ArgumentError(f"labels must be data, model or both, not {labels!r}.")
    if not 0 < rho < 1:
        raise ArgumentError(f"rho must lie between 0 and 1, not {rho}.")
    if batch != "auto" and (not isinstance(batch, int) or batch < 1):
        raise ArgumentError(f"batch must be auto or a positive number of blocks, not {batch!r}.")
    if not len(blocks) or int(blocks.lengths.min()) < 2:
        raise TextError("There is nothing to predict: a block needs at least two tokens.")
    return _KINDS[labels]


@contextlib.contextmanager
def prepared(model: nn.Module) -> Iterator[None]:
    """Weights frozen, evaluation mode, no TF32, while the block runs; then as before."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    training, precision = model.training, torch.get_float32_matmul_precision()
    for parameter in wanted:
        parameter.requires_grad_(False)
    model.eval()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        model.train(training)
        for parameter in wanted:
            parameter.requires_grad_(True)


def _first_scale(model: Any) -> float:
    return _HALF_PRECISION_SCALE if model.dtype == torch.float16 else 1.0


def _worth_compiling(model: nn.Module, blocks: Blocks, device: torch.device) -> bool:
    weights = sum(parameter.numel() for parameter in model.parameters())
    return device.type == "cuda" and 4 * weights * int(blocks.lengths.sum()) > _OPERATIONS_WORTH_COMPILING


def _totals_bytes(sites: Sequence[Site], wanted: _Wanted) -> int:
    """float64 totals and float32 sums of the batch at hand, per channel as in ``method`` 1."""
    labelled, shared = 7 * 3 + 4 + 2 * 8, 2 * 3 + 4 + 2
    channels = sum(site.width for site in sites)
    crossed = sum(site.width * _core_size(site, wanted.rho) for site in sites) if wanted.redundancy else 0
    return 12 * (channels * (labelled * len(wanted.kinds) + shared) + crossed)


def _say_before(
    model: nn.Module, blocks: Blocks, memory: Memory, state: State, device: torch.device, tokens_left: float
) -> None:
    tokens = int(blocks.lengths.sum())
    what = f"Profiling {len(blocks)} blocks, {tokens:,} tokens, {state.batch} blocks at once"
    peak = gib(memory.peak(state.batch, int(blocks.lengths.max())))
    if device.type == "cpu":
        seconds = expected_seconds(model, tokens_left)
        remark(f"{what}: about {duration(seconds)} and {peak} of memory on this CPU.")
    else:
        remark(f"{what}: about {peak} of memory on {device}.")


def _refuse_non_finite(arrays: dict[str, np.ndarray]) -> None:
    for key, array in arrays.items():
        if not np.isfinite(array).all():
            raise NumericsError(
                f"{key} is not finite: the loss or its gradient overflowed at this site.",
                hint="Try --dtype bfloat16 or float32.",
            )
