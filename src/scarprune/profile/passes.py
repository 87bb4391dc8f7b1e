"""Passes over blocks, forwards and backwards: the batch that fits, halved where it does not, resumable."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import nn

from scarprune.errors import (
    ArgumentError,
    MemoryBudgetError,
    ScarpruneError,
    TextError,
)
from scarprune.models.capture import plain_causal_masks
from scarprune.models.context import vocabulary_size
from scarprune.models.forward import device_of, input_device
from scarprune.models.head import Head
from scarprune.models.layers import find_layers
from scarprune.models.norms import fused_norms
from scarprune.models.site import Site
from scarprune.profile.accumulate import SumsPass
from scarprune.profile.checkpointed import checkpointed
from scarprune.profile.compiling import Compiling
from scarprune.profile.entropy import EntropyPass, entropy_gradient
from scarprune.profile.layerwise import Layerwise
from scarprune.profile.loss import block_uniforms, loss_gradient
from scarprune.profile.observer import Looking, Observer, Restorable
from scarprune.profile.proof import Proof
from scarprune.profile.state import Keeper, State
from scarprune.profile.together import through_layers
from scarprune.profile.totals import refuse_non_finite
from scarprune.profile.watch import Looks, Summing, summing, watching
from scarprune.profile.ways import Way, find_way, say_before
from scarprune.runtime.device import to_device
from scarprune.runtime.graph import Leash
from scarprune.runtime.memory import is_out_of_memory, release_cached
from scarprune.runtime.progress import remark, track
from scarprune.runtime.ranks import ALONE, Ranks
from scarprune.text.blocks import Blocks

_HALF_PRECISION_SCALE = 4096.0  # keeps float16 gradients of 1e-6 out of the subnormal numbers


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
    way: Way
    looks: Looks
    layerwise: Layerwise | None = None
    mean_loss: bool = False
    ranks: Ranks = ALONE

    def through(self, number: int, observer: Restorable, kinds: Sequence[str]) -> dict[str, np.ndarray]:
        """The totals of pass ``number``: begun, gone on with, or as an earlier run finished it.

        The state keeps this copy's own totals, so that each copy goes on from wherever it was; what is
        returned is of all copies.
        """
        observer.restore(self.state.of_pass(number))
        if self.state.phase > number:
            return self.ranks.total(self.state.of_pass(number), self.device)
        # Where nothing is kept to go on from, the sums meet before they leave the device.
        at_once = self.ranks.copies > 1 and not self.keeper.keeps
        meet = observer.add_up if at_once else None
        self.finish(number, self.walk(number, observer, kinds, f"Pass {number}", meet))
        totals = self.state.of_pass(number)
        return totals if at_once else self.ranks.total(totals, self.device)

    def finish(self, number: int, totals: Mapping[str, np.ndarray]) -> None:
        """Put the totals of pass ``number`` into the state, which then stands before the next pass."""
        self.state.arrays |= {f"{number}/{key}": array for key, array in totals.items()}
        self.state.phase, self.state.next_block = number + 1, self.ranks.share(self.blocks.lengths)[0]

    def walk(
        self,
        number: int,
        observer: Observer,
        kinds: Sequence[str],
        what: str,
        then: Callable[[torch.device], None] | None = None,
    ) -> dict[str, np.ndarray]:
        """Take every block of this copy from ``state.next_block`` on through the model; the totals.

        ``then`` is called, with the run's device, before they are read.
        """
        tokens = self.blocks.lengths
        start, stop = self.ranks.share(tokens)
        done = int(tokens[start : self.state.next_block].sum())
        self.state.phase = number
        leash = Leash(self.device)
        with (
            self.watched(observer),
            track(what, int(tokens[start:stop].sum()), done=done) as advance,
        ):
            while self.state.next_block < stop:
                advance(self.step(observer, kinds))
                leash.step()
                if self.keeper.keeps and self.ranks.agree_on_copy(self.keeper.due()):
                    self._keep(number, observer)
        if then is not None:
            then(self.device)
        totals = observer.arrays()
        refuse_non_finite(totals)
        return totals

    def step(self, observer: Observer, kinds: Sequence[str]) -> int:
        """Take one batch, or those that go through streamed layers together; 0 where with less again."""
        parts = self._next_parts()
        if not self._attempt(observer, kinds, parts):
            return 0
        self.state.next_block = int(parts[-1][-1]) + 1
        return int(sum(self.blocks.lengths[rows].sum() for rows in parts))

    @contextlib.contextmanager
    def watched(self, observer: Observer) -> Iterator[None]:
        """``observer`` sees the sites inside; where it asks for sums, layers may be compiled around them."""
        layers = find_layers(self.model) if self.way.kind == "checkpointed" else []
        if not isinstance(observer, Summing):
            watched = watching(self.model, self.sites, cast(Looking, observer).observe)
            with watched, fused_norms(self.model), checkpointed(layers):
                yield
            return
        with summing(self.model, self.sites, observer, self.looks):
            if self.compiling.on and not observer.is_ready():
                self._touch()
            with self.compiling.layers(self.model), checkpointed(layers):
                yield

    def _touch(self) -> None:
        """Let every site be seen once."""
        if self.layerwise is not None:
            self.layerwise.touch()
            return
        with torch.enable_grad():
            self.head.hidden(torch.from_numpy(self.blocks.ids[:1, :2]))

    def _next_parts(self) -> list[np.ndarray]:
        """The next batches to take: one, or those that go through streamed layers together."""
        parts = [self._rows_from(self.state.next_block)]
        while (stop := int(parts[-1][-1]) + 1) < self.ranks.share(self.blocks.lengths)[1]:
            more = self._rows_from(stop)
            if int(more[-1]) - self.state.next_block >= self.way.together:
                break
            parts.append(more)
        return parts

    def _rows_from(self, start: int) -> np.ndarray:
        """Blocks to take at once: up to ``batch`` neighbours of one length."""
        lengths, stop = self.blocks.lengths, start + 1
        end = self.ranks.share(lengths)[1]
        while stop < end and stop - start < self.state.batch and lengths[stop] == lengths[start]:
            stop += 1
        return np.arange(start, stop)

    def takes(self, rows: np.ndarray) -> bool:
        """Whether the batch of these blocks is compiled."""
        return self.compiling.takes(int(self.blocks.lengths[rows[0]]), len(rows) == self.state.batch)

    def running(self, rows: np.ndarray | None) -> contextlib.AbstractContextManager[Any]:
        """Layers run compiled inside if the batch of these blocks is; not if it is None."""
        return self.compiling.batch(rows is not None and self.takes(rows))

    def _attempt(self, observer: Observer, kinds: Sequence[str], parts: Sequence[np.ndarray]) -> bool:
        """Add the batches to the observer's totals; False where they must be tried again with less."""
        rows, proof = parts[0], Proof(self, observer, parts)
        compiled = any(self.takes(part) for part in parts)
        try:
            if self.layerwise is not None:
                return through_layers(self, self.layerwise, observer, kinds, proof)
            for number in reversed(range(len(proof.batches))):  # last the batch itself: it is pending then
                with proof.running(number):
                    self._batch(observer, kinds, proof.batches[number])
                proof.see(number, observer)
        except ScarpruneError:
            raise
        except Exception as error:
            if not is_out_of_memory(error):
                if compiled and self.compiling.gives_up(error):
                    return False
                raise
            failed = error.with_traceback(None)  # the frames of the failed batch hold its activations
        else:
            return proof.holds() and self.committed(observer, rows)
        if proof.eager and self.ranks.parts == 1:
            self.compiling.proven = True
            release_cached(self.device)
            remark("There is no memory for an eager batch, so the compiled sums are not compared with its.")
            return False
        if not self.may_halve or self.state.batch == 1:
            raise MemoryBudgetError(
                f"A batch of {len(rows)} blocks of {self.blocks.lengths[rows[0]]} tokens does not fit.",
                hint="Use --batch auto, shorter blocks (--length) or a smaller dtype.",
            ) from failed
        self.state.batch = max(1, self.state.batch // 2)
        self.compiling.proven = False  # another shape is another program
        release_cached(self.device)
        remark(f"Out of memory: going on with {self.state.batch} blocks at once.")
        return False

    def _batch(self, observer: Observer, kinds: Sequence[str], rows: np.ndarray) -> None:
        observer.begin(self.groups[rows], int(self.blocks.lengths[rows[0]]))
        ids, draws = self._ids(rows), self._draws(kinds, rows)
        with torch.enable_grad():
            hidden = self.head.hidden(ids)
        self.backward(observer, hidden, self._gradients(observer, kinds, ids, draws, hidden))

    def _ids(self, rows: np.ndarray) -> torch.Tensor:
        ids = torch.from_numpy(self.blocks.ids[rows, : int(self.blocks.lengths[rows[0]])])
        return to_device(ids, input_device(self.model))

    def _draws(self, kinds: Sequence[str], rows: np.ndarray) -> torch.Tensor | None:
        if "model" not in kinds:
            return None
        targets = int(self.blocks.lengths[rows[0]]) - 1
        return to_device(block_uniforms(self.seed, rows.tolist(), targets), self.device)

    def gradients(
        self, observer: Observer, kinds: Sequence[str], rows: np.ndarray, hidden: torch.Tensor
    ) -> Mapping[str, torch.Tensor]:
        """By kind of labels, the gradient of the blocks' scaled loss at what the head reads."""
        return self._gradients(observer, kinds, self._ids(rows), self._draws(kinds, rows), hidden)

    def _gradients(
        self,
        observer: Observer,
        kinds: Sequence[str],
        ids: torch.Tensor,
        draws: torch.Tensor | None,
        hidden: torch.Tensor,
    ) -> Mapping[str, torch.Tensor]:
        scale = self.state.scale
        if isinstance(observer, EntropyPass):
            return {kinds[0]: entropy_gradient(self.head, hidden, self.vocabulary, scale)}
        return loss_gradient(
            self.head, hidden, ids, kinds, draws, self.vocabulary, scale, self.compiling.rows
        ).gradient

    def backward(
        self,
        observer: Observer,
        out: torch.Tensor,
        gradients: Mapping[str, torch.Tensor],
        given: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Backward from ``out`` for each kind of labels; the gradients at ``given``, where it has any."""
        below: dict[str, torch.Tensor] = {}
        kinds = list(gradients)
        for kind in kinds:
            if isinstance(observer, SumsPass):
                observer.labels, observer.with_u = kind, kind == kinds[0]
            torch.autograd.backward(out, gradients[kind], retain_graph=kind != kinds[-1])
            if given is not None and given.grad is not None:
                below[kind], given.grad = given.grad, None
        return below

    def committed(self, observer: Observer, rows: np.ndarray) -> bool:
        """Add what the observer saw of the blocks ``rows`` to its totals; False where it overflowed."""
        if not self._scale_held(observer):
            return False
        # A mean for a sum is what dividing the loss by the targets of these blocks gives.
        observer.commit(self.state.scale * (int(self.blocks.lengths[rows[0]]) - 1 if self.mean_loss else 1))
        return True

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
    """Weights frozen, evaluation mode, no TF32, plain causal masks, while the block runs; then as before."""
    wanted = [parameter for parameter in model.parameters() if parameter.requires_grad]
    training, precision = model.training, torch.get_float32_matmul_precision()
    for parameter in wanted:
        parameter.requires_grad_(False)
    model.eval()
    torch.set_float32_matmul_precision("highest")
    try:
        with plain_causal_masks():
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
    bound: int | None = None,
    labels: int = 1,
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
        bound: bytes that may be in use on the model's device; None is what is free there.
        labels: kinds of labels, each with a backward pass of its own.

    Raises:
        MemoryBudgetError: not even one block fits ``bound``.
        UnsupportedModelError: streamed layers that cannot be called one by one.
    """
    looks: Looks = {}
    with contextlib.nullcontext() if compiled else fused_norms(model):  # as batches will be taken
        head, way, layerwise = find_way(
            model,
            sites,
            blocks,
            totals=totals,
            compiled=compiled,
            batch=state.batch or batch,
            bound=bound,
            labels=labels,
            ranks=ranks,
            looks=looks,
        )
    state.batch = way.batch
    say_before(what, model, blocks, way, layerwise, work, compiled, ranks)
    device = device_of(model)
    # Parts of one copy work in step: where one runs out of memory, the others already wait for it.
    may_halve = batch == "auto" and ranks.parts == 1
    return Run(
        model,
        head,
        sites,
        blocks,
        groups,
        device,
        vocabulary_size(model),
        seed,
        may_halve,
        keeper,
        state,
        Compiling(compiled, blocks.lengths),
        way,
        looks,
        layerwise,
        mean_loss,
        ranks,
    )


def first_scale(model: Any) -> float:
    """What the loss is multiplied by at the start."""
    return _HALF_PRECISION_SCALE if model.dtype == torch.float16 else 1.0
