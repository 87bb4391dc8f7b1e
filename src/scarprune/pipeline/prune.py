"""The main job in one call: profile, plan, cut, save, verify, perplexity before and after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scarprune.artifacts import refuse_existing, replace_folder
from scarprune.cut.card import Quality
from scarprune.cut.cast import stored_dtype
from scarprune.cut.compensate.apply import lacks_bias
from scarprune.cut.compensate.compensation import Compensation, find_compensation
from scarprune.cut.compensate.job import Bounds
from scarprune.cut.report import CutReport
from scarprune.cut.travel import refuse_overlap
from scarprune.errors import ArtifactError, PlanError, TextError, UnsupportedModelError
from scarprune.evaluate.perplexity import Perplexity, excess, perplexity
from scarprune.models.find import find_sites
from scarprune.models.fingerprint import fingerprint_model
from scarprune.models.site import Site
from scarprune.models.source import origin_of
from scarprune.models.streamed import streamed_of
from scarprune.models.supports import refuse_cut
from scarprune.pipeline.cut_streamed import cut_streamed, streamed_source
from scarprune.pipeline.cutting import cut_in_memory, save_cut
from scarprune.pipeline.inputs import Compensating, Loading, Measuring, Planning, Reading
from scarprune.pipeline.lesson import FOR_REFIT, Lesson, check_own, lesson
from scarprune.pipeline.room import load_within
from scarprune.pipeline.stages import BETTER_TEXT, count_of, describe, describe_model, measure, say_expected
from scarprune.pipeline.texts import Texts, read_texts
from scarprune.pipeline.workshop import workshop
from scarprune.plan.plan import Plan, make_plan
from scarprune.plan.readiness import readiness
from scarprune.profile.run import Labels
from scarprune.profile.sums import Profile, extra_of, load_profile
from scarprune.runtime.device import resolve_device
from scarprune.runtime.memory import bounded
from scarprune.runtime.progress import remark
from scarprune.runtime.provenance import provenance
from scarprune.scores.score import find_score
from scarprune.text.blocks import Blocks

_STATE, _PROFILE = "profile.state", "profile.safetensors"  # what an interrupted run leaves behind


@dataclass(frozen=True)
class Pruned:
    """What came of a prune.

    Attributes:
        out: the folder of the smaller checkpoint.
        plan: what was cut.
        report: sizes, and how the reloaded checkpoint compares with the masked dense model.
        dense: of the whole model on the evaluation text.
        pruned: of the smaller one on the same blocks.
        texts: what was measured and judged on.
        facts: provenance of the JSON.
        own_text: blocks in the model's own words that a compensation was fitted to besides.
    """

    out: Path
    plan: Plan
    report: CutReport
    dense: Perplexity
    pruned: Perplexity
    texts: Texts
    facts: dict[str, Any]
    own_text: int = 0

    @property
    def excess(self) -> tuple[float, float | None]:
        """ln(perplexity pruned / dense) in nats, and its standard error paired over blocks."""
        return excess(self.dense, self.pruned)

    def as_json(self) -> dict[str, Any]:
        """The keys of ``prune --json``."""
        nats, error = self.excess
        calibration = self.texts.calibration
        return {
            "provenance": self.facts,
            "out": str(self.out),
            "dense": self.dense.as_json(),
            "pruned": self.pruned.as_json(),
            "excess_nats": nats,
            "excess_standard_error": error,
            **self.report.as_json(),
            "readiness": readiness(self.report.widths.values()).as_json(),
            "verified": True,
            "score": self.plan.score,
            "sparsity": self.plan.sparsity,
            "calibration": None if calibration is None else describe(calibration),
            "own_text": self.own_text,
            "evaluation": describe(self.texts.evaluation),
            "overlap": self.texts.overlap,
        }


def prune(
    source: str,
    out: Path,
    sparsity: float,
    *,
    text: str | None = None,
    profile: Path | None = None,
    evaluation: str | None = None,
    evaluation_blocks: int | None = None,
    loading: Loading = Loading(),
    reading: Reading = Reading(),
    measuring: Measuring = Measuring(),
    planning: Planning = Planning(),
    compensating: Compensating = Compensating(),
    save_dtype: str | None = None,
    pad: bool = False,
    resume: bool = False,
    overwrite: bool = False,
) -> Pruned:
    """Make a smaller checkpoint of a model, and say honestly what that cost.

    Args:
        source: a folder, a hub id, a ``.gguf`` file or ``demo``.
        out: the folder to write; it appears whole, after verification.
        sparsity: fraction of the channels to remove, in [0, 1).
        text: what to measure on; None is the shipped calibration text.
        profile: a profile of the same weights, where measuring is already done.
        evaluation: what to judge on; None takes up to 64 blocks of the text that calibration did not use.
        evaluation_blocks: how many blocks to judge on; None is all of a text that was named.
        loading: how the model is loaded.
        reading: how text becomes blocks.
        measuring: how it is profiled; labels, redundancy and extras follow from what the score needs.
        planning: how the channels that stay are chosen.
        compensating: how they make up for those that go, on the text that was measured on.
        save_dtype: of the saved tensors; None as in the source, bfloat16 for a ``.gguf`` file.
        pad: whether sites of different widths are stored with channels of zeros.
        resume: go on from what an interrupted run left in ``OUT.partial``.
        overwrite: replace ``out`` where it is there.
    """
    refuse_existing(out, overwrite)
    measuring = as_needed(measuring, planning.score)
    compensation = check_compensating(compensating)
    given = None if profile is None else load_profile(profile)
    with (
        workshop(out, resume, keep=(_STATE, _PROFILE)) as work,
        bounded(resolve_device(loading.device), measuring.bound),
    ):
        model, tokenizer = load_within(loading, source, measuring, reading.length)
        _refuse_early(model, out, save_dtype, compensation)
        rehearse(find_sites(model), sparsity, planning, pad)
        if given is not None:
            _check_weights(given, model, profile)
        elif text is None and source != "demo":
            remark(BETTER_TEXT)
        texts = read_texts(
            tokenizer,
            reading,
            text=text,
            evaluation=evaluation,
            evaluation_count=evaluation_blocks,
            profile=given,
            count=count_of(measuring.blocks),
        )
        _refuse_lost_text(texts, compensation)
        measured = given or measured_once(model, texts.calibration, measuring, reading.seed, work)
        plan = _plan(measured, sparsity, planning, reading.seed)
        say_expected(model, texts.evaluation, runs=2)
        dense = perplexity(model, texts.evaluation, batch=measuring.batch, compiled=measuring.compiled)
        facts = provenance(**describe_model(model, source), seed=reading.seed)
        learned = _learned(model, tokenizer, texts, compensation, compensating, reading.seed)
        saving: dict[str, Any] = {"save_dtype": save_dtype, "pad": pad, "loading": loading}
        pruned, report = _cut(
            model, tokenizer, plan, work / out.name, texts, dense, learned, measuring, compensating, saving
        )
        replace_folder(work / out.name, out)
    return Pruned(out, plan, report, dense, pruned, texts, facts, 0 if learned is None else learned.own)


def _learned(
    model: Any,
    tokenizer: Any | None,
    texts: Texts,
    compensation: Compensation,
    compensating: Compensating,
    seed: int,
) -> Lesson | None:
    """What the compensation is fitted to, where it is fitted to anything."""
    if compensation.fit is None or texts.calibration is None:
        return None
    return lesson(
        model,
        tokenizer,
        texts.calibration,
        compensating.own_text,
        seed,
        auto=FOR_REFIT if compensation.trains else 0,
        seconds=compensating.compensate_seconds,
    )


def _cut(
    model: Any,
    tokenizer: Any | None,
    plan: Plan,
    folder: Path,
    texts: Texts,
    dense: Perplexity,
    learned: Lesson | None,
    measuring: Measuring,
    compensating: Compensating,
    saving: Mapping[str, Any],
) -> tuple[Perplexity, CutReport]:
    """Cut, judge and write: in memory, or from folder to folder where the model is streamed."""
    if streamed_of(model) is not None:
        return cut_streamed(
            model,
            plan,
            folder,
            texts.evaluation,
            lambda pruned: _quality(dense, pruned, texts),
            batch=measuring.batch,
            **saving,
        )
    reference = cut_in_memory(
        model,
        plan,
        ids=texts.evaluation.ids[0, : texts.evaluation.lengths[0]],
        save_dtype=saving["save_dtype"],
        pad=saving["pad"],
        blocks=None if learned is None else learned.text,
        held_out=None if learned is None else learned.held_out,
        compensating=compensating,
    )
    pruned = perplexity(model, texts.evaluation, batch=measuring.batch, compiled=measuring.compiled)
    quality = _quality(dense, pruned, texts)
    return pruned, save_cut(model, tokenizer, plan, folder, reference, quality=quality, **saving)


def _refuse_lost_text(texts: Texts, compensation: Compensation) -> None:
    if compensation.fit is not None and texts.calibration is None:
        raise TextError(
            f"The text that the profile was measured on cannot be read again, and {compensation.name!r} "
            "is fitted to it.",
            hint="Leave out --profile, or use --compensate none.",
        )


def as_needed(measuring: Measuring, *scores: str) -> Measuring:
    """Labels, the second pass and extra ones as the scores need them.

    Raises:
        ArgumentError: no such score; said before anything is loaded.
    """
    chosen = [find_score(name) for name in scores]
    needs = {name for score in chosen for name in score.needs}
    labels: Labels = "both" if any(score.labels == "model" for score in chosen) else "data"
    return replace(
        measuring,
        labels=labels,
        redundancy=any(name.startswith("red/") for name in needs),
        extras=tuple(sorted({extra for name in needs if (extra := extra_of(name))})),
    )


def check_compensating(compensating: Compensating, *others: str) -> Compensation:
    """The compensation that was asked for; its numbers are checked as well, before anything is loaded.

    Numbers that neither it nor one of the ``others`` uses get a remark.

    Raises:
        ArgumentError: there is none of the name, or a number that cannot be.
    """
    check_own(compensating.own_text)
    Bounds(compensating.compensate_steps, compensating.compensate_seconds)
    chosen = find_compensation(compensating.compensate)
    used_by = [chosen, *map(find_compensation, others)]
    idle = []
    if not any(each.trains for each in used_by):
        bounds = {"steps": compensating.compensate_steps, "seconds": compensating.compensate_seconds}
        idle = [f"--compensate-{unit}" for unit, bound in bounds.items() if bound is not None]
    if compensating.own_text not in ("auto", 0) and all(each.fit is None for each in used_by):
        idle.append("--own-text")
    if idle:
        names = ",".join(others or [chosen.name])
        remark(f"Nothing is changed by {' and '.join(idle)}, as --compensate is {names}.")
    return chosen


def _refuse_early(model: Any, out: Path, save_dtype: str | None, compensation: Compensation) -> None:
    """What would be refused when the checkpoint is written is refused before the long work."""
    refuse_cut(model)
    if streamed_of(model) is not None:
        streamed_source(model, compensation.name)
    if compensation.adds_bias and lacks_bias(model):
        raise UnsupportedModelError(
            f"Down projections of {type(model).__name__} have no bias in stock transformers, so what "
            f"{compensation.name!r} adds cannot be saved.",
            hint="Use --compensate ls, or prune_model(..., compensate='bias') to evaluate it in memory.",
        )
    if save_dtype is not None:
        stored_dtype(save_dtype)
    origin = origin_of(model)
    if origin is not None and origin.path.is_dir():
        refuse_overlap(origin.path, out)


def rehearse(sites: Sequence[Site], sparsity: float, planning: Planning, pad: bool) -> None:
    """Make the plan from a profile of zeros: what is wrong with the numbers shows before the long work.

    Raises:
        PlanError: an option that cannot be, a sparsity that does not leave the core, or widths that will
            differ and could not be saved.
    """
    blank = Profile(
        sites=list(sites),
        header={"fingerprint": "", "labels": ["data"]},
        tensors={f"{site.name}/sum_q2": np.zeros((3, site.width)) for site in sites},
    )
    protect = planning.protect or ("core" if find_score(planning.score).keeps_core else None)
    _plan(blank, sparsity, replace(planning, score="random", protect=protect), seed=0)
    if planning.allocation != "uniform" and not pad:
        raise PlanError(
            "Widths that differ by site cannot be saved as they are.",
            hint="Add --pad, or use --allocation uniform.",
        )


def _plan(profile: Profile, sparsity: float, planning: Planning, seed: int) -> Plan:
    return make_plan(
        profile,
        planning.score,
        sparsity,
        protect=planning.protect,
        multiple_of=planning.multiple_of,
        allocation=planning.allocation,
        cap=planning.cap,
        seed=seed,
    )


def _check_weights(profile: Profile, model: Any, path: Path | None) -> None:
    found = fingerprint_model(model)
    if profile.fingerprint != found:
        raise ArtifactError(
            f"{path} was measured on other weights: {profile.fingerprint[:16]}, not {found[:16]}.",
            hint="Profile this model, or leave out --profile.",
        )


def measured_once(model: Any, text: Blocks | None, measuring: Measuring, seed: int, work: Path) -> Profile:
    """The profile that an interrupted run finished in ``work``, or a new one, kept in case the rest fails."""
    assert text is not None  # only a given profile's text may be lost
    state, finished = work / _STATE, work / _PROFILE
    if finished.exists():
        kept = load_profile(finished)
        alike = kept.header["text"][0].get("fingerprint") == text.fingerprint
        enough = set(kept.labels) >= ({"data", "model"} if measuring.labels == "both" else {"data"})
        has_red = kept.has("red/top5") or not measuring.redundancy
        has_extras = set(kept.extras) >= set(measuring.extras)
        if kept.fingerprint != fingerprint_model(model) or not alike:
            raise ArtifactError(
                f"{finished} belongs to another measurement.",
                hint="Remove it, or begin again without --resume.",
            )
        if enough and has_red and has_extras:
            return kept
        remark(f"{finished} does not hold all that is needed now, so it is measured again.")
    measured = measure(model, text, measuring, seed=seed, state=state)
    measured.save(finished, overwrite=True)
    return measured


def _quality(dense: Perplexity, pruned: Perplexity, texts: Texts) -> Quality:
    nats, error = excess(dense, pruned)
    return Quality(
        dense=dense.as_json(),
        pruned=pruned.as_json(),
        text=texts.evaluation.source,
        excess_nats=nats,
        excess_standard_error=error,
    )
