"""From a plan to a verified checkpoint, on whichever way the source allows."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scarprune.artifacts import refuse_existing
from scarprune.cut.report import CutReport
from scarprune.cut.stream import cut_folder
from scarprune.models.source import locate
from scarprune.pipeline.inputs import Loading
from scarprune.plan.plan import Plan

if TYPE_CHECKING:
    import numpy as np

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
    ids = probe_ids(model.config.to_dict()) if verify else None
    return cut_loaded(
        model,
        tokenizer,
        plan,
        out,
        ids=ids,
        save_dtype=save_dtype,
        pad=pad,
        loading=loading,
        overwrite=overwrite,
    )


def cut_loaded(
    model: Any,
    tokenizer: Any | None,
    plan: Plan,
    out: Path,
    *,
    ids: "np.ndarray | None",
    save_dtype: str | None = None,
    pad: bool = False,
    loading: Loading = Loading(),
    overwrite: bool = False,
) -> CutReport:
    """Cut ``model`` in memory and write ``out``; afterwards both are the same smaller model.

    A folder is still cut from disk, tensor by tensor, so that what is saved are slices of what was stored.

    Args:
        model: from ``Loading.load``, not yet cut.
        tokenizer: its own, or None.
        plan: made for its weights.
        out: the new folder.
        ids: int64 [T], the block to verify logits on; None for no reload.
        save_dtype: of the saved tensors.
        pad: store sites of different widths with channels of zeros.
        loading: how the model was loaded.
        overwrite: replace ``out`` where it is there.
    """
    from scarprune.cut.prune import prune_model, report_of
    from scarprune.cut.save import save_model
    from scarprune.cut.verify import reference_logits, verify_reload
    from scarprune.models.family import known_family
    from scarprune.models.source import origin_of

    origin = origin_of(model)
    from_disk = origin is not None and not origin.gguf and known_family(model.config) is not None
    if save_dtype is not None or not from_disk:
        _round(model, save_dtype, plan.fingerprint)
    reference = None if ids is None else reference_logits(model, plan, ids)
    dtype, remote = str(model.dtype).removeprefix("torch."), loading.trust_remote_code
    differences: list[float] = []

    def check(folder: Path) -> None:
        if reference is not None and ids is not None:
            differences.append(verify_reload(folder, reference, ids, dtype=dtype, trust_remote_code=remote))

    prune_model(model, plan, pad=pad)
    if origin is not None and from_disk:
        report = cut_folder(
            origin.path,
            plan,
            out,
            overwrite=overwrite,
            save_dtype=save_dtype,
            pad=pad,
            trust_remote_code=remote,
            source_name=origin.source,
        )
        check(out)
    else:
        save_model(model, tokenizer, out, plan, overwrite, save_dtype, check=check)
        report = report_of(model, plan, save_dtype)
    return replace(report, max_logit_difference=differences[0] if differences else None)


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
