"""Runs of a sweep: plans, the pruned models as masks or as a cut copy, and what that costs."""

import copy
import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from scarprune.cut.compensate.compensation import find_compensation
from scarprune.cut.compensate.job import Bounds
from scarprune.cut.prune import expected_parameters, prune_model
from scarprune.errors import MemoryBudgetError, NumericsError
from scarprune.evaluate.ablate import Ablator
from scarprune.evaluate.perplexity import Perplexity, excess, perplexity
from scarprune.evaluate.plans import judge_plans
from scarprune.pipeline.inputs import Batch, Compensating, Planning
from scarprune.pipeline.lesson import FOR_REFIT, Lesson, lesson
from scarprune.pipeline.sweep.grid import Run
from scarprune.plan.plan import Plan, make_plan
from scarprune.profile.compiling import Compiled
from scarprune.profile.sums import Profile
from scarprune.runtime.memory import is_out_of_memory, release_cached
from scarprune.text.blocks import Blocks

_OF_COMPENSATION = ("kept", "fell_back", "seconds", "held_out_nats_per_token")


@dataclass(frozen=True)
class Judge:
    """What every run is judged by.

    Attributes:
        model: dense; it is left as it is.
        tokenizer: its own.
        blocks: to judge on.
        planning: how widths are chosen.
        compensating: how long layers may be trained, and on what besides; its compensation is not used.
        batch: blocks at once.
        compiled: whether layers are compiled.
    """

    model: Any
    tokenizer: Any
    blocks: Blocks
    planning: Planning
    compensating: Compensating
    batch: Batch
    compiled: Compiled = "auto"
    _lessons: dict[tuple[str, bool], Lesson] = field(default_factory=dict)

    def __call__(
        self, runs: Sequence[Run], profile: Profile, text: Blocks, dense: Perplexity
    ) -> list[dict[str, Any]]:
        """What the line of each of ``runs`` says of its outcome; what is not finite is null, with the reason.

        Several runs are judged as masks, all in one pass.
        """
        plans = [self._plan(run, profile) for run in runs]
        return [
            self._line(plan, dense, *outcome)
            for plan, outcome in zip(plans, self._outcomes(runs, plans, text), strict=True)
        ]

    def _outcomes(
        self, runs: Sequence[Run], plans: Sequence[Plan], text: Blocks
    ) -> list[tuple[Perplexity | NumericsError, dict[str, Any]]]:
        if runs[0].as_masks:
            return [(judged, {}) for judged in judge_plans(self._ablator, plans)]
        try:
            return [self._cut(plan, run, text) for plan, run in zip(plans, runs, strict=True)]
        except NumericsError as error:
            return [(error, {})]

    @cached_property
    def _ablator(self) -> Ablator:
        return Ablator(self.model, self.blocks, batch=self.batch, compiled=self.compiled)

    def _plan(self, run: Run, profile: Profile) -> Plan:
        return make_plan(
            profile,
            run.way.score,
            run.sparsity,
            protect=run.way.protect,
            multiple_of=self.planning.multiple_of,
            allocation=self.planning.allocation,
            cap=self.planning.cap,
            seed=run.seed,
        )

    def _line(
        self, plan: Plan, dense: Perplexity, pruned: Perplexity | NumericsError, facts: Mapping[str, Any]
    ) -> dict[str, Any]:
        before, after = expected_parameters(self.model, plan)
        found: dict[str, Any] = {
            "achieved_sparsity": plan.achieved_sparsity,
            "parameters_before": before,
            "parameters_after": after,
            "pruned": None,
            "excess_nats": None,
            "excess_standard_error": None,
            "compensation": None,
            "missing": {},
        }
        if isinstance(pruned, NumericsError):
            return found | {"missing": {"excess_nats": pruned.message}}
        nats, deviation = excess(dense, pruned)
        judged = {"pruned": pruned.as_json(), "excess_nats": nats, "excess_standard_error": deviation}
        return {**found, **judged, **facts}

    def _lesson(self, run: Run, text: Blocks) -> Lesson:
        """What ``run`` is fitted to; what the model writes is written once a seed."""
        key = text.fingerprint, find_compensation(run.way.compensate).trains
        if any(fingerprint != key[0] for fingerprint, _ in self._lessons):
            self._lessons.clear()
        if key not in self._lessons:
            self._lessons[key] = lesson(
                self.model,
                self.tokenizer,
                text,
                self.compensating.own_text,
                run.seed,
                auto=FOR_REFIT if key[1] else 0,
                seconds=self.compensating.compensate_seconds,
            )
        return self._lessons[key]

    def _cut(self, plan: Plan, run: Run, text: Blocks) -> tuple[Perplexity, dict[str, Any]]:
        device = next(self.model.parameters()).device
        try:
            small = copy.deepcopy(self.model)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryBudgetError(
                f"A second copy of the model, which {run.way.compensate!r} cuts, does not fit on {device}.",
                hint="Use a smaller --dtype, or --compensate none.",
            ) from error
        try:
            learned = self._lesson(run, text)
            report = prune_model(
                small,
                plan,
                run.way.compensate,
                pad=True,
                blocks=learned.text,
                held_out=learned.held_out,
                bounds=Bounds(self.compensating.compensate_steps, self.compensating.compensate_seconds),
            )
            done = report.compensation or {}
            facts = {
                "parameters_after": report.parameters_after,
                "compensation": {key: done[key] for key in _OF_COMPENSATION},
                "own_text": learned.own,
            }
            return perplexity(small, self.blocks, batch=self.batch, compiled=self.compiled), facts
        finally:
            del small
            gc.collect()
            release_cached(device)
