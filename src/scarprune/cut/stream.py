"""From folder to folder: shard by shard, in little memory, without torch or transformers in the process."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scarprune.artifacts import atomic_folder, refuse_existing
from scarprune.cut.card import Quality, write_card
from scarprune.cut.cast import stored_dtype
from scarprune.cut.changed import Changed
from scarprune.cut.config import config_of_cut
from scarprune.cut.count import count
from scarprune.cut.match import stored_selections
from scarprune.cut.report import CutReport
from scarprune.cut.shards import files_of, write_files
from scarprune.cut.transfer import Transfer
from scarprune.cut.travel import PLAN, copy_companions, refuse_overlap, write_config
from scarprune.cut.verify import verify_folder
from scarprune.cut.width import padding, stored_width
from scarprune.errors import PlanError
from scarprune.models.checkpoint import Checkpoint, open_checkpoint
from scarprune.models.family import family_of
from scarprune.models.fingerprint import fingerprint_folder
from scarprune.models.supports import refuse_cut
from scarprune.plan.plan import Plan


def cut_folder(
    source: str | Path,
    plan: Plan,
    out: str | Path,
    *,
    overwrite: bool = False,
    verify: bool = False,
    save_dtype: str | None = None,
    max_shard: int | None = None,
    pad: bool = False,
    trust_remote_code: bool = False,
    source_name: str | None = None,
    quality: Quality | None = None,
    check: Callable[[Path], float | None] | None = None,
    changed: Changed | None = None,
) -> CutReport:
    """Cut the checkpoint in ``source`` to ``out`` without loading it: a few megabytes are held at a time.

    Every written tensor is read again and compared with its slice of the source, bit for bit (with its new
    values where they were changed).

    Args:
        source: a model folder with safetensors files.
        plan: made for its weights.
        out: the new folder; it appears when it is whole and verified.
        overwrite: replace what is at ``out``.
        verify: also load the result by stock transformers, in a process of its own, and compare its logits
            with those of the masked source on 128 tokens.
        save_dtype: ``float32``, ``bfloat16`` or ``float16``; the source's own where None.
        max_shard: bytes of a file at most; the source's own files where None.
        pad: fill narrower sites up with zero channels where widths differ.
        trust_remote_code: copy Python files, and run them where the result is verified.
        source_name: what the model card calls the source, such as its hub id; the path where None.
        quality: perplexities for the model card.
        check: another verification, called with the folder before it takes its name: what it raises leaves
            nothing behind, and the difference of logits that it returns goes into the report.
        changed: weights that are written in the place of slices.

    Raises:
        ArtifactError: a damaged source, an existing ``out``, a full disk.
        ArgumentError: ``out`` overlaps with ``source``, an unknown dtype.
        PlanError: the plan is for other weights, or its widths differ and ``pad`` is false.
        UnsupportedModelError: the architecture, or how its weights are stored, cannot be cut on disk.
        NumericsError: a verification failed.
    """
    source, out = Path(source), Path(out)
    checkpoint = open_checkpoint(source)
    refuse_overlap(source, out)
    refuse_existing(out, overwrite)
    job = _job(checkpoint, plan, pad, save_dtype)
    report = _report(plan, job)
    if changed is not None:
        job = replace(job, transfers=changed.among(job.transfers))
        report = replace(report, compensate=changed.compensation["name"], compensation=changed.compensation)
    with atomic_folder(out, overwrite=overwrite) as folder:
        write_config(folder, job.config)
        copy_companions(source, folder, code=trust_remote_code)
        write_files(folder, checkpoint, files_of(checkpoint, job.transfers, max_shard))
        plan.save(folder / PLAN)
        if verify:
            difference = verify_folder(
                source, plan, folder, dtype=save_dtype or "auto", trust_remote_code=trust_remote_code
            )
            report = replace(report, max_logit_difference=difference)
        if check is not None:
            report = replace(report, max_logit_difference=check(folder))
        write_card(folder, out.name, source_name or str(source), plan, report, quality, source)
    return report


@dataclass(frozen=True)
class _Job:
    """What a cut will do."""

    transfers: Sequence[Transfer]
    width: int
    config: dict[str, Any]


def _job(checkpoint: Checkpoint, plan: Plan, pad: bool, save_dtype: str | None) -> _Job:
    dtype = None if save_dtype is None else stored_dtype(save_dtype)
    refuse_cut(checkpoint.config)
    family = family_of(checkpoint.config)
    width = stored_width(plan, pad)
    touched = stored_selections(checkpoint, family, plan, width)
    _check_fingerprint(plan, checkpoint)
    transfers = [Transfer(t, touched.get(name), dtype) for name, t in checkpoint.tensors.items()]
    return _Job(transfers, width, config_of_cut(checkpoint.config, family, plan, width, save_dtype))


def _check_fingerprint(plan: Plan, checkpoint: Checkpoint) -> None:
    found = fingerprint_folder(checkpoint.folder)
    if found != plan.fingerprint:
        raise PlanError(
            f"The plan was made for other weights: {plan.fingerprint[:16]}, not {found[:16]}.",
            hint="Profile these weights and plan again.",
        )


def _report(plan: Plan, job: _Job) -> CutReport:
    counted = count(job.transfers)
    return CutReport(
        widths=dict.fromkeys(plan.keep, job.width),
        parameters_before=counted.parameters_before,
        parameters_after=counted.parameters_after,
        bytes_before=counted.bytes_before,
        bytes_after=counted.bytes_after,
        achieved_sparsity=plan.achieved_sparsity,
        padding=padding(plan, job.width),
    )
