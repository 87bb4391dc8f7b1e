"""Passes over blocks, forwards and backwards: the batch that fits, halved where it does not, resumable."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
import torch
from torch import nn

from scarprune.errors import ArgumentError, MemoryBudgetError, NumericsError, ScarpruneError, TextError
from scarprune.models.context import vocabulary_size
from scarprune.models.forward import input_device
from scarprune.models.head import Head, find_head
from scarprune.models.site import Site
from scarprune.profile.accumulate import SumsPass
from scarprune.profile.compiling import Compiling, even_batch
from scarprune.profile.entropy import EntropyPass, entropy_gradient
from scarprune.profile.estimate import Memory, estimate_memory, expected_seconds
from scarprune.profile.loss import block_uniforms, loss_gradient
from scarprune.profile.state import Keeper, State
from scarprune.profile.watch import Summing, summing, watching
from scarprune.runtime.device import to_device
from scarprune.runtime.graph import Leash
from scarprune.runtime.memory import gib, is_out_of_memory, release_cached
from scarprune.runtime.progress import duration, remark, track
from scarprune.runtime.ranks import ALONE, Ranks
from scarprune.text.blocks import Blocks

_HALF_PRECISION_SCALE = 4096.0  # keeps float16 gradients of 1e-6 out of the subnormal numbers


class Observer(Protocol):
    """What sees u and s of every site; a batch counts wholly once ``commit`` is called, not at all before."""

    def begin(self, groups: np.ndarray, tokens: int) -> None:
        """Forget what an unfinished batch left; expect blocks of ``tokens``, of these ``Run.groups``."""

    def commit(self, scale: float = 1.0) -> None:
        """Add the batch to the totals; ``scale`` is what the loss was multiplied by."""

    def arrays(self) -> dict[str, np.ndarray]:
        """All totals."""

    def pending_is_finite(self) -> bool:
        """Whether the batch just seen holds numbers alone."""


class Looking(Observer, Protocol):
    """An observer that looks at u and s themselves, where a ``Summing`` one asks for sums of them."""

    def observe(self, index: int, u: torch.Tensor, s: torch.Tensor) -> None:
        """See u and s of one site; s is multiplied by the scale of the run."""


class Restorable(Observer, Protocol):
    """An observer that goes on from the totals of an earlier run."""

    def restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Continue from totals that ``arrays`` gave."""


@dataclass
class Run:
    """A model, a text, and how far the run over it has come."""

    model: nn.Module
    head: Head
    sites: Sequence[Site]
    blocks: Blocks
    groups: np.ndarray
    device: torch.device
    vocabulary: int
    seed: int
    may_halve: bool
    keeper: Keeper
    state: State
    compiling: Compiling
    mean_loss: bool = False
    ranks: Ranks = ALONE

    def through(self, number: int, observer: Restorable, kinds: Sequence[str]) -> dict[str, np.ndarray]:
        """The totals of pass ``number``: begun, gone on with, or as an earlier run finished it.

        The state keeps this copy's own totals, so that each copy goes on from wherever it was; what is
        returned is of all copies.
        """
        observer.restore(self.state.of_pass(number))
        if self.state.phase <= number:
            self.finish(number, self.walk(number, observer, kinds))
        return over_copies(self.state.of_pass(number), self.ranks, self.device)

    def finish(self, number: int, totals: Mapping[str, np.ndarray]) -> None:
        """Put the totals of pass ``number`` into the state, which then stands before the next pass."""
        self.state.arrays |= {f"{number}/{key}": array for key, array in totals.items()}
        self.state.phase, self.state.next_block = number + 1, self.ranks.share(self.blocks.lengths)[0]

    def walk(
        self, number: int, observer: Observer, kinds: Sequence[str], what: str = ""
    ) -> dict[str, np.ndarray]:
        """Take every block of this copy from ``state.next_block`` on through the model; the totals."""
        tokens = self.blocks.lengths
        start, stop = self.ranks.share(tokens)
        done = int(tokens[start : self.state.next_block].sum())
        self.state.phase = number
        leash = Leash(self.device)
        with (
            self.watched(observer),
            track(what or f"Pass {number}", int(tokens[start:stop].sum()), done=done) as advance,
        ):
            while self.state.next_block < stop:
                advance(self.step(observer, kinds))
                leash.step()
                if self.ranks.agree_on_copy(self.keeper.due()):
                    self._keep(number, observer)
        totals = observer.arrays()
        _refuse_non_finite(totals)
        return totals

    def step(self, observer: Observer, kinds: Sequence[str]) -> int:
        """Take one batch; the tokens it had, 0 where it is to be taken again with less."""
        rows = self._next_rows()
        if not self._attempt(observer, kinds, rows):
            return 0
        tokens = self.blocks.lengths[rows]
        # A mean for a sum is what dividing the loss by the targets of these blocks gives.
        observer.commit(self.state.scale * (int(tokens[0]) - 1 if self.mean_loss else 1))
        self.state.next_block = int(rows[-1]) + 1
        return int(tokens.sum())

    @contextlib.contextmanager
    def watched(self, observer: Observer) -> Iterator[None]:
        """``observer`` sees the sites inside; where it asks for sums, layers may be compiled around them."""
        if not isinstance(observer, Summing):
            with watching(self.model, self.sites, cast(Looking, observer).observe):
                yield
            return
        with summing(self.model, self.sites, observer):
            if self.compiling.on and not observer.is_ready():
                with torch.enable_grad():
                    self.head.hidden(torch.from_numpy(self.blocks.ids[:1, :2]))
            with self.compiling.layers(self.model):
                yield

    def _next_rows(self) -> np.ndarray:
        """The next blocks to take at once: up to ``batch`` neighbours of one length."""
        start, lengths = self.state.next_block, self.blocks.lengths
        stop, end = start + 1, self.ranks.share(lengths)[1]
        while stop < end and stop - start < self.state.batch and lengths[stop] == lengths[start]:
            stop += 1
        return np.arange(start, stop)

    def _attempt(self, observer: Observer, kinds: Sequence[str], rows: np.ndarray) -> bool:
        """Run one batch into the observer's pending sums; False where it must be tried again with less."""
        whole = len(rows) == self.state.batch
        compiled = self.compiling.takes(int(self.blocks.lengths[rows[0]]), whole)
        try:
            with self.compiling.batch(compiled):
                self._batch(observer, kinds, rows)
        except ScarpruneError:
            raise
        except Exception as error:
            if not is_out_of_memory(error):
                if compiled and self.compiling.gives_up(error):
                    return False
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

    def _batch(self, observer: Observer, kinds: Sequence[str], rows: np.ndarray) -> None:
        length = int(self.blocks.lengths[rows[0]])
        ids = to_device(torch.from_numpy(self.blocks.ids[rows, :length]), input_device(self.model))
        observer.begin(self.groups[rows], length)
        draws = None
        if "model" in kinds:
            draws = to_device(block_uniforms(self.seed, rows.tolist(), length - 1), self.device)
        with torch.enable_grad():
            hidden = self.head.hidden(ids)
        scale = self.state.scale
        if isinstance(observer, EntropyPass):
            torch.autograd.backward(hidden, entropy_gradient(self.head, hidden, self.vocabulary, scale))
            return
        result = loss_gradient(
            self.head, hidden, ids, kinds, draws, self.vocabulary, scale, self.compiling.rows
        )
        for kind in kinds:
            if isinstance(observer, SumsPass):
                observer.labels, observer.with_u = kind, kind == kinds[0]
            torch.autograd.backward(hidden, result.gradient[kind], retain_graph=kind != kinds[-1])

    def _scale_held(self, observer: Observer) -> bool:
        """In float16, whether nothing overflowed; where it did, the scale shrinks for another try."""
        if self.state.scale == 1.0 or self.ranks.least_of_copy(observer.pending_is_finite()):
            return True
        self.state.scale = max(1.0, self.state.scale / 16)
        return False

    def _keep(self, number: int, observer: Observer) -> None:
        others = {key: a for key, a in self.state.arrays.items() if not key.startswith(f"{number}/")}
        self.state.arrays = others | {f"{number}/{key}": a for key, a in observer.arrays().items()}
        self.keeper.keep(self.state)


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


def check(batch: int | str, blocks: Blocks) -> None:
    """Refuse what no run can take.

    Raises:
        ArgumentError: ``batch`` is neither auto nor a positive number.
        TextError: a block has nothing to predict.
    """
    if batch != "auto" and (not isinstance(batch, int) or batch < 1):
        raise ArgumentError(f"batch must be auto or a positive number of blocks, not {batch!r}.")
    if not len(blocks) or int(blocks.lengths.min()) < 2:
        raise TextError("There is nothing to predict: a block needs at least two tokens.")


def begin(
    model: Any,
    sites: Sequence[Site],
    blocks: Blocks,
    groups: np.ndarray,
    state: State,
    keeper: Keeper,
    *,
    batch: int | Literal["auto"],
    totals: int,
    work: float,
    what: str,
    seed: int = 0,
    compiled: bool = False,
    mean_loss: bool = False,
    ranks: Ranks = ALONE,
) -> Run:
    """A run at its start, or where an earlier one stopped, with its batch chosen and its cost said.

    Args:
        groups: int64 [blocks], what ``Observer.begin`` is told of each block.
        totals: bytes that the observer keeps to the end.
        work: tokens still to take forward and backward, over all passes.
        what: what is done, for the remark.
        compiled: whether layers are, with what the observer sums.
        mean_loss: whether each block's loss is divided by its targets.
        ranks: the processes that take part.
    """
    device, head, vocabulary = device_of(model), find_head(model), vocabulary_size(model)
    memory = estimate_memory(model, head, sites, device, vocabulary, totals, compiled)
    if not state.batch:
        length, (start, stop) = int(blocks.lengths.max()), ranks.share(blocks.lengths)
        fits = memory.largest_batch(length, stop - start, device)
        state.batch = int(ranks.least_of_copy(fits)) if batch == "auto" else batch
        if compiled and batch == "auto":  # other shapes run eagerly
            state.batch = even_batch(state.batch, stop - start)
    _say_before(model, blocks, memory, state, device, work, what, compiled, ranks)
    # Parts of one copy work in step: where one runs out of memory, the others already wait for it.
    may_halve = batch == "auto" and ranks.parts == 1
    compiling = Compiling(compiled, blocks.lengths)
    return Run(
        model,
        head,
        sites,
        blocks,
        groups,
        device,
        vocabulary,
        seed,
        may_halve,
        keeper,
        state,
        compiling,
        mean_loss,
        ranks,
    )


def over_copies(
    totals: Mapping[str, np.ndarray], ranks: Ranks, device: torch.device
) -> dict[str, np.ndarray]:
    """The sum over all copies of ``totals``, float64: one all-reduce."""
    if ranks.copies == 1:
        return dict(totals)
    keys = sorted(totals)
    flat = ranks.total(np.concatenate([totals[key].ravel() for key in keys]), device)
    parts = np.split(flat, np.cumsum([totals[key].size for key in keys])[:-1])
    return {key: part.reshape(totals[key].shape) for key, part in zip(keys, parts, strict=True)}


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first weights are; the CPU where all are offloaded and so on no device."""
    devices = (p.device for p in model.parameters() if p.device.type != "meta")
    return next(devices, torch.device("cpu"))


def first_scale(model: Any) -> float:
    """What the loss is multiplied by at the start."""
    return _HALF_PRECISION_SCALE if model.dtype == torch.float16 else 1.0


def _say_before(
    model: nn.Module,
    blocks: Blocks,
    memory: Memory,
    state: State,
    device: torch.device,
    tokens_left: float,
    what: str,
    compiled: bool,
    ranks: Ranks,
) -> None:
    tokens = int(blocks.lengths.sum())
    what = f"{what} {len(blocks)} blocks, {tokens:,} tokens, {state.batch} blocks at once"
    if ranks.count > 1:
        parts = f", a copy of the model in {ranks.parts} of them" if ranks.parts > 1 else ""
        what += f" in each of {ranks.copies} shares, {ranks.count} processes{parts}"
    what += ", compiled" if compiled else ""
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
