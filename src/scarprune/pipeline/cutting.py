"""From a plan to a verified checkpoint, on whichever way the source allows."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scarprune.artifacts import refuse_existing
from scarprune.cut.report import CutReport
from scarprune.cut.stream import cut_folder
from scarprune.models.source import locate
from scarprune.pipeline.inputs import Compensating, Loading
from scarprune.plan.plan import Plan

if TYPE_CHECKING:
    import numpy as np

    from scarprune.cut.card import Quality
    from scarprune.models.source import Origin
    from scarprune.text.blocks import Blocks

MASKED = "masked dense one"
# What cuts a model in memory is imported where it is used: a folder is cut without torch in the process.


def cut(
    source: str,
    plan: Plan,
    out: Path,
    *,
    verify: bool = False,
    save_dtype: str | None = None,
    pad: bool = False,
    loading: Loading = Loading(),
    overwrite: bool = False,
) -> CutReport:
    """Apply ``plan`` to ``source`` and write ``out``: shard by shard where it is a folder, else in memory.

    Args:
        source: a folder, a hub id, a ``.gguf`` file or ``demo``.
        plan: made for its weights.
        out: the new folder; it appears when it is whole and verified.
        verify: also reload it in a fresh process and compare logits with those of the masked model.
        save_dtype: of the saved tensors; None as in the source, bfloat16 for a ``.gguf`` file.
        pad: store sites of different widths with channels of zeros.
        loading: how the model is loaded, where it is.
        overwrite: replace ``out`` where it is there.
    """
    refuse_existing(out, overwrite)
    origin = locate(source, loading.revision, code=loading.trust_remote_code)
    if not origin.gguf:
        return cut_folder(
            origin.path,
            plan,
            out,
            overwrite=overwrite,
            verify=verify,
            save_dtype=save_dtype,
            pad=pad,
            trust_remote_code=loading.trust_remote_code,
            source_name=source,
        )
    from scarprune.cut.verify import probe_ids

    model, tokenizer = loading.load(source)
    reference = cut_in_memory(
        model, plan, ids=probe_ids(model.config.to_dict()), save_dtype=save_dtype, pad=pad, verify=verify
    )
    return save_cut(
        model,
        tokenizer,
        plan,
        out,
        reference,
        save_dtype=save_dtype,
        pad=pad,
        loading=loading,
        overwrite=overwrite,
    )


@dataclass(frozen=True, slots=True)
class Reference:
    """What a reloaded checkpoint must compute.

    Attributes:
        ids: int64 [T], a block.
        logits: float32 [T, V], of that block.
        what: whose logits, in words.
    """

    ids: "np.ndarray"
    logits: "np.ndarray"
    what: str


def cut_in_memory(
    model: Any,
    plan: Plan,
    *,
    ids: "np.ndarray",
    save_dtype: str | None = None,
    pad: bool = False,
    verify: bool = True,
    blocks: "Blocks | None" = None,
    held_out: "Blocks | None" = None,
    compensating: Compensating = Compensating(),
) -> Reference | None:
    """Cut ``model``; returns what it computed on ``ids`` while its channels were only masked.

    Where weights are compensated it is what the cut model computes in memory.

    Args:
        model: from ``Loading.load``, not yet cut.
        plan: made for its weights.
        ids: int64 [T], the block to verify on.
        save_dtype: what it will be saved in; the weights in memory take the values that will be saved.
        pad: give sites of different widths the widest, filled up with channels of zeros.
        verify: whether to compute the reference at all.
        blocks: calibration text for a compensation.
        held_out: text to judge it by; None is a part of ``blocks``.
        compensating: how the rest makes up for what goes.
    """
    from scarprune.cut.compensate.job import Bounds
    from scarprune.cut.prune import prune_model
    from scarprune.cut.verify import LONGEST_BLOCK, reference_logits

    if save_dtype is not None or _folder(model) is None:
        _round(model, save_dtype, plan.fingerprint)
    ids = ids[:LONGEST_BLOCK]
    kind = compensating.compensate
    masks = Reference(ids, reference_logits(model, plan, ids), MASKED) if verify and kind == "none" else None
    bounds = Bounds(compensating.compensate_steps, compensating.compensate_seconds)
    prune_model(
        model, plan, kind, pad=pad, blocks=blocks, held_out=held_out, bounds=bounds, save_dtype=save_dtype
    )
    if not verify or masks is not None:
        return masks
    return Reference(ids, reference_logits(model, None, ids), "compensated one in memory")


def save_cut(
    model: Any,
    tokenizer: Any | None,
    plan: Plan,
    out: Path,
    reference: Reference | None,
    *,
    save_dtype: str | None = None,
    pad: bool = False,
    loading: Loading = Loading(),
    quality: "Quality | None" = None,
    overwrite: bool = False,
) -> CutReport:
    """Write a model that ``cut_in_memory`` cut, and verify what was written against ``reference``.

    Where the model came from a folder, that is cut once more, tensor by tensor, so that what is saved are
    slices of what was stored, save for weights that a compensation changed; else the weights in memory are
    saved.

    Raises:
        NumericsError: stock transformers computes something else in a fresh process; nothing is left behind.
    """
    from scarprune.cut.compensate.compensated import changed, refuse_added
    from scarprune.cut.prune import report_of
    from scarprune.cut.save import save_model
    from scarprune.cut.verify import verify_reload

    dtype, remote = str(model.dtype).removeprefix("torch."), loading.trust_remote_code

    def check(folder: Path) -> float | None:
        if reference is None:
            return None
        return verify_reload(
            folder,
            reference.logits,
            reference.ids,
            dtype=dtype,
            trust_remote_code=remote,
            what=reference.what,
        )

    refuse_added(model)
    origin = _folder(model)
    if origin is not None:
        return cut_folder(
            origin.path,
            plan,
            out,
            overwrite=overwrite,
            save_dtype=save_dtype,
            pad=pad,
            trust_remote_code=remote,
            source_name=origin.source,
            quality=quality,
            check=check,
            changed=changed(model),
        )
    differences: list[float | None] = []
    save_model(
        model,
        tokenizer,
        out,
        plan,
        overwrite,
        save_dtype,
        quality=quality,
        check=lambda folder: differences.append(check(folder)),
    )
    return replace(report_of(model, plan, save_dtype), max_logit_difference=differences[0])


def _folder(model: Any) -> "Origin | None":
    """Where the model's own tensors are stored, if it can be cut from there."""
    from scarprune.models.family import known_family
    from scarprune.models.source import origin_of

    origin = origin_of(model)
    cuttable = origin is not None and not origin.gguf and known_family(model.config) is not None
    return origin if cuttable else None


def _round(model: Any, save_dtype: str | None, fingerprint: str) -> None:
    """Give the weights in memory the values that will be saved, so that both are one model."""
    import torch

    from scarprune.cut.dtypes import saved_dtypes
    from scarprune.models.fingerprint import carry_fingerprint

    dtypes = saved_dtypes(model, save_dtype)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            tensor.copy_(tensor.to(dtypes[name]))
    carry_fingerprint(model, fingerprint)
