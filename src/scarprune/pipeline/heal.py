"""From a cut checkpoint and its dense teacher to a better checkpoint of the same size."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from scarprune.artifacts import partial_path, refuse_existing, replace_folder, write_json
from scarprune.cut.card import Quality, Training
from scarprune.cut.dtypes import saved_dtypes
from scarprune.cut.save import save_model
from scarprune.cut.travel import HEAL, PLAN, refuse_overlap
from scarprune.distill.budget import make_budget
from scarprune.distill.heal import heal as train
from scarprune.distill.settings import Settings
from scarprune.distill.train import Healed
from scarprune.errors import UnsupportedModelError
from scarprune.evaluate.perplexity import Perplexity, excess, perplexity
from scarprune.models.fingerprint import fingerprint_model
from scarprune.models.source import origin_of
from scarprune.pipeline.inputs import Loading, Reading, judged
from scarprune.pipeline.lesson import FOR_HEAL, OwnBlocks, check_own, lesson
from scarprune.pipeline.stages import BETTER_TEXT, describe, describe_model
from scarprune.pipeline.texts import say_overlap
from scarprune.pipeline.workshop import workshop
from scarprune.plan.plan import load_plan
from scarprune.runtime.progress import remark
from scarprune.runtime.provenance import provenance
from scarprune.runtime.ranks import find_ranks, joined
from scarprune.text.blocks import Blocks

_STATE, _OWN_TEXT = "heal.state", "own-text.npz"


@dataclass(frozen=True)
class Judged:
    """Perplexities of teacher and student on a text that nothing was learned from.

    Attributes:
        dense: of the teacher.
        before: of the student as it came.
        after: of the healed one, in the numbers that are saved.
        blocks: the text.
        overlap: share of its 13-grams of tokens that the text learned from holds.
    """

    dense: Perplexity
    before: Perplexity
    after: Perplexity
    blocks: Blocks
    overlap: float | None

    def as_json(self) -> dict[str, Any]:
        """The keys that ``heal --json`` has with ``--eval``."""
        document: dict[str, Any] = {"evaluation": describe(self.blocks), "overlap": self.overlap}
        document["dense"] = self.dense.as_json()
        for when, result in (("before", self.before), ("after", self.after)):
            nats, error = excess(self.dense, result)
            document[when] = {
                **result.as_json(),
                "excess_nats": nats,
                "excess_standard_error": error,
            }
        return document


@dataclass(frozen=True)
class HealedFolder:
    """A healed checkpoint.

    Attributes:
        out: its folder.
        healed: what the training did.
        judged: perplexities, where a text to judge on was named.
        text: what was learned from, the held-out blocks included.
        own: blocks in the teacher's own words that were learned from besides.
        facts: provenance of the JSON.
    """

    out: Path
    healed: Healed
    judged: Judged | None
    text: Blocks
    own: int
    facts: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """The keys of ``heal --json``, and of the JSON in the folder."""
        return {
            "provenance": self.facts,
            "out": str(self.out),
            "text": describe(self.text),
            "own_text": self.own,
            **self.healed.as_json(),
            **({} if self.judged is None else self.judged.as_json()),
        }


def heal(
    source: str,
    teacher: str,
    out: Path,
    *,
    text: str | None = None,
    blocks: int | None = None,
    evaluation: str | None = None,
    evaluation_blocks: int | None = None,
    loading: Loading = Loading(),
    reading: Reading = Reading(),
    settings: Settings = Settings(),
    own_text: OwnBlocks = "auto",
    resume: bool = False,
    overwrite: bool = False,
) -> HealedFolder | None:
    """Train a cut model towards its dense teacher, and save it where that made it better.

    Under torchrun or accelerate launch the processes work on one model; the first one writes.

    Args:
        source: the cut model.
        teacher: the dense one, of the same vocabulary.
        out: the folder to write; it appears whole.
        text: what to learn from; None is the shipped calibration text.
        blocks: how many of its blocks; None is all of them.
        evaluation: a text to judge both on; None judges nothing but the held-out blocks.
        evaluation_blocks: how many of its blocks; None is all of them.
        loading: how both are loaded; the dtype is that of judging with ``evaluation``.
        reading: how texts become blocks.
        settings: how to train.
        own_text: blocks in the teacher's own words that are added to the text.
        resume: go on from what an interrupted run left in ``OUT.partial``.
        overwrite: replace ``out`` where it is there.

    Returns:
        What came of it; None in processes that do not write.
    """
    refuse_existing(out, overwrite)
    check_own(own_text)
    with joined(loading.device) as device:
        ranks = find_ranks()
        kept = (_STATE, _OWN_TEXT)
        with workshop(out, resume, keep=kept) if ranks.first else nullcontext(partial_path(out)) as work:
            ranks.wait()
            loading = replace(loading, device=device)
            student, tokenizer = loading.load(source)
            dense, other = loading.load(teacher)
            _refuse_other_tokenizer(tokenizer, other)
            for model in (student, dense):
                _refuse_overlap(model, out)
            if text is None and source != "demo":
                remark(BETTER_TEXT)
            read = reading.blocks(text or "demo", tokenizer, blocks)
            chosen = None
            if evaluation is not None:
                chosen = reading.blocks(judged(evaluation), tokenizer, evaluation_blocks)
            facts = provenance(
                **describe_model(student, source),
                teacher=teacher,
                teacher_fingerprint=fingerprint_model(dense),
                seed=reading.seed,
                processes=ranks.count,
            )
            before = None
            if ranks.first and chosen is not None:
                before = perplexity(dense, chosen), perplexity(student, chosen)
            ranks.wait()
            dtypes = saved_dtypes(student)
            computed = _set_dtypes(student, dtypes)
            budget = make_budget(settings.steps, settings.tokens, settings.seconds, step_tokens=1)
            learned = lesson(
                dense,
                tokenizer,
                read,
                own_text,
                reading.seed,
                auto=FOR_HEAL,
                seconds=budget.seconds,
                keep=work / _OWN_TEXT,
                ranks=ranks,
            )
            healed = train(
                student,
                dense,
                learned.text,
                held_out=learned.held_out,
                resume=work / _STATE,
                settings=settings,
            )
            if not ranks.first:
                return None
            result = HealedFolder(out, healed, None, read, learned.own, facts)
            if chosen is not None and before is not None:
                _set_dtypes(student, computed)
                after = perplexity(student, chosen)
                seen = Judged(*before, after, chosen, say_overlap(read, chosen))
                result = replace(result, judged=seen)
            _save(student, tokenizer, teacher, result, work / out.name)
            replace_folder(work / out.name, out)
    return result


def _refuse_other_tokenizer(student: Any | None, teacher: Any | None) -> None:
    """Refuse a teacher whose ids mean other tokens; models without a tokenizer are compared by size alone."""
    if student is not None and teacher is not None and student.get_vocab() != teacher.get_vocab():
        raise UnsupportedModelError(
            "The teacher's tokenizer has other tokens than the student's.",
            hint="Only a teacher of the same vocabulary can be learned from.",
        )


def _refuse_overlap(model: Any, out: Path) -> None:
    origin = origin_of(model)
    if origin is not None and origin.path.is_dir():
        refuse_overlap(origin.path, out)


def _set_dtypes(model: Any, dtypes: Mapping[str, torch.dtype]) -> dict[str, torch.dtype]:
    """Give every parameter its dtype; returns those they had."""
    had = {}
    for name, parameter in model.named_parameters():
        had[name] = parameter.dtype
        parameter.data = parameter.data.to(dtypes[name])
    return had


def _save(student: Any, tokenizer: Any | None, teacher: str, result: HealedFolder, folder: Path) -> None:
    """Write the checkpoint with its JSON, and with plan and card where the student has its plan along."""
    origin = origin_of(student)
    path = None if origin is None else (origin.path if origin.path.is_dir() else origin.path.parent) / PLAN
    plan = None if path is None or not path.is_file() else load_plan(path)
    healed, judged_on = result.healed, result.judged
    quality = None
    if judged_on is not None:
        nats, error = excess(judged_on.dense, judged_on.after)
        quality = Quality(
            dense=judged_on.dense.as_json(),
            pruned=judged_on.after.as_json(),
            text=judged_on.blocks.source,
            excess_nats=nats,
            excess_standard_error=error,
        )
    save_model(
        student,
        tokenizer,
        folder,
        plan,
        quality=quality,
        training=Training(teacher, healed.tokens, result.text.source, healed.before, healed.after),
        check=lambda growing: write_json(growing / HEAL, "heal", result.as_json()),
    )
