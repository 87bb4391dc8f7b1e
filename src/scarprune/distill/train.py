"""The loop: batches until the budget is gone, judged now and then, the best kept."""

import math
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from scarprune.distill.budget import make_budget, rate_factor
from scarprune.distill.judge import Judge
from scarprune.distill.learner import Learner
from scarprune.distill.reader import Teacher, checkpointed_layers
from scarprune.distill.settings import Compile, Settings
from scarprune.distill.state import Keeper, State
from scarprune.distill.stream import Stream
from scarprune.distill.weights import Weights
from scarprune.errors import ArgumentError, MemoryBudgetError, ScarpruneError, first_line
from scarprune.models.capture import plain_causal_masks
from scarprune.models.compiled import compiled_layers
from scarprune.models.head import Head
from scarprune.models.norms import fused_norms
from scarprune.profile.divergence import divergence_rows
from scarprune.runtime.graph import Leash
from scarprune.runtime.memory import available_bytes, is_out_of_memory, release_cached
from scarprune.runtime.progress import duration, remark
from scarprune.runtime.ranks import Ranks
from scarprune.text.blocks import Blocks

_CPU_TOKENS = 2048  # at once: more is not faster
_SHARE_OF_TIME = 0.2  # of a budget of time, for judging
_SHARE_OF_FREE = 0.25  # of memory, for the teacher's kept answers
_COMPILE_LAYERS_S, _COMPILE_OBJECTIVE_S = 120.0, 30.0  # budgets from which compiling has paid for itself


@dataclass(frozen=True)
class Healed:
    """What came of a heal.

    Attributes:
        before: KL(teacher || student) on the held-out blocks, nats per token, of the student as it came.
        after: of the weights that were kept.
        steps: optimizer steps taken.
        tokens: tokens read in them, over all processes.
        seconds: wall clock, all runs together.
        tokens_per_second: while training; judging included, preparing not.
        history: per judgement: ``step``, ``seconds``, ``tokens``, ``training_nats`` (mean since the last
            one), ``held_out_nats``.
        settings: what was asked for.
    """

    before: float
    after: float
    steps: int
    tokens: int
    seconds: float
    tokens_per_second: float | None
    history: list[dict[str, Any]]
    settings: Settings

    @property
    def improved(self) -> bool:
        """Whether the weights changed at all: only what is better on the held-out blocks is kept."""
        return self.after < self.before

    def as_json(self) -> dict[str, Any]:
        """The keys of a heal's JSON."""
        return {
            "held_out_nats_before": self.before,
            "held_out_nats_after": self.after,
            "improved": self.improved,
            "steps": self.steps,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
            "history": self.history,
            "settings": self.settings.as_json(),
        }


class Training:
    """One heal, from prepared models to the best weights in ``weights.master``."""

    def __init__(
        self,
        student: Head,
        teacher: Head,
        weights: Weights,
        text: Blocks,
        held_out: Blocks,
        settings: Settings,
        ranks: Ranks,
        keeper: Keeper,
        started: float,
    ) -> None:
        if settings.batch % ranks.count:
            raise ArgumentError(
                f"A batch of {settings.batch} blocks cannot be shared by {ranks.count} processes.",
                hint="Use a multiple of their number (--batch).",
            )
        self.settings, self.ranks, self.keeper = settings, ranks, keeper
        self.student, self.weights = student, weights
        self.held_out = held_out
        self.device = weights.master.device
        self.stream = Stream(text, self.device, settings.seed, settings.cuts)
        self.step_tokens = settings.batch * self.stream.length
        self.budget = make_budget(settings.steps, settings.tokens, settings.seconds, self.step_tokens)
        self.compile = _compile(settings.compile, self.device, self.budget.seconds)
        rows = None if self.compile == "none" else torch.compile(divergence_rows, dynamic=False)
        self.teacher = Teacher(teacher, settings.hidden_weight > 0)
        self.learner = Learner(student, teacher, weights, self.step_tokens, settings.hidden_weight, rows)
        self.state = State()
        self._started = started
        self._best = weights.master.to(self._place_of_best(), copy=True)
        self._judge_seconds = 0.0
        self._whole = True  # between two steps: only then is there a state to keep

    def run(self) -> Healed:
        """Train until the budget is gone; the best weights are in place afterwards, also after an error."""
        with ExitStack() as stack:
            stack.callback(self._put_best)
            compilation = stack.enter_context(ExitStack())
            both = self.teacher.head.model, self.student.model
            if self.compile == "layers":
                compilation.enter_context(compiled_layers(*both))
            else:
                stack.enter_context(fused_norms(*both, float32=True))
            if self.settings.checkpointing:
                stack.enter_context(checkpointed_layers(self.student.model))
            self._micro = self._fitting_compiled(compilation)
            with self._eager():
                self._judge = Judge(self.teacher.head, self.held_out, self._micro, self.device, self.ranks)
            self._begin()
            try:
                self._loop()
            except KeyboardInterrupt:
                if self._whole:
                    self._keep()
                raise
        return self._result()

    # -- before the first step ---------------------------------------------------------------------

    def _fitting_compiled(self, compilation: ExitStack) -> int:
        """The same as ``_fitting``; where the compiler fails, nothing is compiled."""
        try:
            return self._fitting()
        except ScarpruneError:
            raise
        except Exception as error:
            if self.compile == "none":
                raise
            remark(f"torch.compile failed, so training goes on without it, and slower: {first_line(error)}")
        compilation.close()
        self.compile = "none"
        self.learner.compile_nothing()
        return self._fitting()

    def _fitting(self) -> int:
        """Blocks at once: the most that fit and divide this process's share of a batch."""
        share = self.settings.batch // self.ranks.count
        most = share
        if self.settings.micro != "auto":
            most = self.settings.micro
        elif self.device.type == "cpu":
            most = max(1, _CPU_TOKENS // self.stream.length)
        for micro in (m for m in range(share, 0, -1) if share % m == 0 and m <= most):
            if self._rehearse(micro):
                return micro
            if self.settings.micro != "auto":
                break
            release_cached(self.device)
        raise MemoryBudgetError(
            f"Not even one part of a batch of blocks of {self.stream.length} tokens fits.",
            hint="Use --checkpointing, --lora, shorter blocks (--length) or fewer at once (--micro 1).",
        )

    def _rehearse(self, micro: int) -> bool:
        """Run a part of a batch for nothing, and capture it; False where memory does not hold it."""
        self.teacher.release()
        self.learner.release()
        try:
            places = self.stream.where(0, micro)
            ids = self.stream.take(places)
            wanted = self.teacher(ids)
            self.learner.learn(ids, wanted)
            if self._captures:
                self._capture(ids, wanted)
            self._make_room(wanted[0])
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            self.learner.forget()
        return True

    @property
    def _captures(self) -> bool:
        return self.device.type == "cuda" and self.settings.graph is not False

    def _capture(self, ids: torch.Tensor, wanted: tuple[torch.Tensor, ...]) -> None:
        try:
            with plain_causal_masks():
                self.teacher.capture(ids)
                self.learner.capture(ids, wanted)
        except RuntimeError as error:
            if is_out_of_memory(error) or self.settings.graph is True:
                raise
            self.teacher.release()
            self.learner.release()
            torch.cuda.synchronize()
            remark(f"A step of this model is no CUDA graph, and slower for it: {first_line(error)}")

    def _make_room(self, like: torch.Tensor) -> None:
        """Keep the teacher's answers, where the same blocks come again and memory allows."""
        if self.settings.cuts is None or self.settings.hidden_weight > 0:
            return
        shape = (self.settings.cuts, self.stream.pieces, *like.shape[1:])
        if math.prod(shape) * like.element_size() <= _SHARE_OF_FREE * available_bytes(self.device):
            self.teacher.keep(shape, like)

    def _begin(self) -> None:
        """Judge the student as it came, or go on from what is kept."""
        found = self.keeper.load()
        if found is None:
            self.state.before = self.state.best = self._judged()
            self.state.rate = self.settings.rate_for(self.student.model, self.state.before)
            self.state.judgements = self._affordable()
            self.state.began = self._now()
            return
        self.state, arrays = found
        self._started -= self.state.elapsed
        tensors = {key: torch.from_numpy(array) for key, array in arrays.items()}
        self.weights.master.copy_(tensors["master"])
        self.weights.publish()
        self._best.copy_(tensors["best"])
        self.learner.restore(tensors, self.state.step)
        self.learner.nats.copy_(tensors["nats"][0])
        remark(f"Going on from step {self.state.step:,}.")

    def _affordable(self) -> int:
        """Judgements of this run: as many as asked for, in no more than a share of a budget of time."""
        if self.budget.seconds is None:
            return self.settings.judgements
        afford = int(_SHARE_OF_TIME * self.budget.seconds / self._judge_seconds)
        return int(self.ranks.agree(min(self.settings.judgements, max(1, afford))))

    # -- step by step ------------------------------------------------------------------------------

    def _loop(self) -> None:
        leash, state, budget = Leash(self.device), self.state, self.budget
        while True:
            gone = self.ranks.agree(self._now() + self._judge_seconds)  # the last judgement is inside
            if budget.ended(state.step, gone):
                break
            fraction = budget.fraction(state.step, gone, state.began)
            if fraction >= (state.judged + 1) / state.judgements:
                self._consider()
            self._step(state.rate * rate_factor(fraction, self.settings.warmup))
            leash.step()
            if self.keeper.due():
                self._keep()
        self._consider()

    def _step(self, rate: float) -> None:
        share = self.settings.batch // self.ranks.count
        first = self.state.step * self.settings.batch + self.ranks.rank * share
        for start in range(first, first + share, self._micro):
            places = self.stream.where(start, self._micro)
            ids = self.stream.take(places)
            self.learner.learn(ids, self.teacher(ids, places))
        self._whole = False
        self.learner.step(rate, self.settings.clip, self.ranks)
        self.state.step += 1
        self._whole = True

    # -- judging and keeping -----------------------------------------------------------------------

    def _judged(self) -> float:
        began = time.monotonic()
        with self._eager(), self.weights.as_given_back():
            nats = self._judge.nats(self.student)
        spent = time.monotonic() - began
        self._judge_seconds = min(self._judge_seconds or spent, spent)
        return nats

    def _eager(self) -> AbstractContextManager[Any]:
        """Layers run as they are inside: other shapes, without gradients, do not pay for compiling."""
        return torch.compiler.set_stance("force_eager") if self.compile == "layers" else nullcontext()

    def _consider(self) -> None:
        """Judge the weights as they are now, and keep them where they are the best so far."""
        state = self.state
        since = state.step - (state.history[-1]["step"] if state.history else 0)
        if not since:
            return
        nats = self._judged()
        self.ranks.add_up(self.learner.nats)
        training = float(self.learner.nats) / (since * self.step_tokens)
        self.learner.nats.zero_()
        if nats < state.best:
            state.best = nats
            self._best.copy_(self.weights.master)
        state.judged += 1
        seconds = self._now()
        state.history.append(
            {
                "step": state.step,
                "seconds": seconds,
                "tokens": state.step * self.step_tokens,
                "training_nats": training,
                "held_out_nats": nats,
            }
        )
        remark(
            f"Step {state.step:,}, {duration(seconds)}: training {training:.4f}, held-out {nats:.4f} nats "
            f"(at first {state.before:.4f}); {self._rate(seconds) or 0:,.0f} tokens/s"
        )

    def _keep(self) -> None:
        self.state.elapsed = self._now()
        if not self.ranks.first or not self.state.step:
            return
        tensors = {
            "master": self.weights.master,
            "best": self._best,
            "nats": self.learner.nats[None],
            **self.learner.moments(),
        }
        self.keeper.keep(self.state, tensors)

    def _put_best(self) -> None:
        self.weights.master.copy_(self._best)
        self.weights.publish()

    def _result(self) -> Healed:
        state, seconds = self.state, self._now()
        healed = Healed(
            before=state.before,
            after=state.best,
            steps=state.step,
            tokens=state.step * self.step_tokens,
            seconds=seconds,
            tokens_per_second=self._rate(seconds),
            history=state.history,
            settings=replace(self.settings, lr=state.rate),
        )
        if not healed.improved:
            remark(
                f"Nothing that was tried is better than {state.before:.4f} nats on the held-out blocks: "
                "the weights stay as they came."
            )
        return healed

    # -- small answers -----------------------------------------------------------------------------

    def _now(self) -> float:
        """Seconds since the call, those of interrupted runs included."""
        return time.monotonic() - self._started

    def _rate(self, seconds: float) -> float | None:
        spent = seconds - self.state.began
        return self.state.step * self.step_tokens / spent if self.state.step and spent > 0 else None

    def _place_of_best(self) -> torch.device:
        size = self.weights.master.nbytes
        return self.device if 4 * size < available_bytes(self.device) else torch.device("cpu")


def _compile(asked: Compile, device: torch.device, seconds: float | None) -> Compile:
    """What is compiled: with ``auto``, what pays within the budget."""
    if asked != "auto":
        return asked
    if device.type != "cuda":
        return "none"
    if seconds is None or seconds >= _COMPILE_LAYERS_S:
        return "layers"
    return "objective" if seconds >= _COMPILE_OBJECTIVE_S else "none"
