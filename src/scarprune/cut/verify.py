"""Proof that a checkpoint holds what the plan says, before anyone hears of success.

Two independent ways: every stored tensor against its slice of the source, bit for bit; and logits of stock
transformers in a fresh process against those of the dense model with the removed channels at zero.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scarprune.errors import ArtifactError, NumericsError
from scarprune.models.checkpoint import read_config
from scarprune.models.context import context_length
from scarprune.models.family import read, text_config
from scarprune.plan.plan import Plan
from scarprune.runtime.child import Child, ChildError

RELOAD = Path(__file__).with_name("reload.py")
LONGEST_BLOCK = 128
TOLERANCE = 1e-4  # of the largest absolute logit: float32 sums in another order stay two decimals below it


def stock_process() -> Child:
    """A fresh process with stock transformers; several verifications can share it."""
    return Child(RELOAD)


def probe_ids(config: Mapping[str, Any]) -> np.ndarray:
    """int64 [T]: token ids to verify with where no text is at hand, the same for every run."""
    length = min(LONGEST_BLOCK, context_length(config) or LONGEST_BLOCK)
    return np.random.default_rng(0).integers(0, int(read(text_config(config), "vocab_size")), length)


def reference_logits(model: Any, plan: Plan | None, ids: np.ndarray) -> np.ndarray:
    """float32 [T, V]: logits of the dense ``model`` with the removed channels at zero.

    Narrower weights are computed with in float32, one module at a time, so that no second model is needed.

    Args:
        model: not yet cut.
        plan: for it; None for a model whose own logits are the reference.
        ids: int64 [T], at most 128 of them are read.

    Raises:
        PlanError: the plan is for other weights.
        UnsupportedModelError: the model's weights are offloaded.
    """
    import torch

    from scarprune.cut.prune import refuse_offloaded
    from scarprune.cut.reload import in_float32
    from scarprune.evaluate.masks import masked

    refuse_offloaded(model)
    device = model.get_input_embeddings().weight.device
    block = torch.as_tensor(ids[:LONGEST_BLOCK], device=device)[None]
    masks = contextlib.nullcontext() if plan is None else masked(model, plan)
    with torch.no_grad(), masks, in_float32(model):
        logits: np.ndarray = model(input_ids=block, use_cache=False).logits[0].float().cpu().numpy()
    return logits


def verify_reload(
    folder: Path,
    reference: np.ndarray,
    ids: np.ndarray,
    *,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    child: Child | None = None,
    what: str = "masked dense one",
) -> float:
    """Load ``folder`` by stock transformers in a fresh process and compare its logits with ``reference``.

    Args:
        folder: the smaller checkpoint.
        reference: float32 [T, V], of the masked dense model, or of a compensated one.
        ids: int64 [T], what the reference was computed on.
        dtype: what the reference's weights were loaded in; computing is in float32 in any case.
        trust_remote_code: as for loading the source.
        child: a process to use instead of a fresh one.
        what: the reference, in words.

    Returns:
        The largest absolute difference of any logit.

    Raises:
        NumericsError: it exceeds 1e-4 of the largest absolute logit, or a logit is not finite.
        ArtifactError: stock transformers cannot load the checkpoint.
    """
    found = _stock_logits(folder, ids, child, dtype=dtype, trust_remote_code=trust_remote_code)
    if found.shape != reference.shape:
        raise NumericsError(f"Logits of the reloaded model are {found.shape}, not {reference.shape}.")
    difference, scale = float(np.abs(found - reference).max()), float(np.abs(reference).max())
    if not np.isfinite(difference) or difference > TOLERANCE * scale:
        raise NumericsError(
            f"The reloaded model differs from the {what}: its logits by up to {difference:.3g}, "
            f"where {TOLERANCE * scale:.3g} is allowed.",
            hint="The output was not kept.",
        )
    return difference


def verify_folder(
    source: Path,
    plan: Plan,
    folder: Path,
    *,
    dtype: str = "auto",
    trust_remote_code: bool = False,
    child: Child | None = None,
) -> float:
    """As ``verify_reload``, for a folder that was cut from ``source`` and saved in ``dtype``.

    Both are loaded in a fresh process, one after the other; the token ids are random.
    """
    ids = probe_ids(read_config(source))
    keep = {site.name: [site.width, site.keep.tolist()] for site in plan.sites}
    how: dict[str, Any] = {"dtype": dtype, "trust_remote_code": trust_remote_code}
    with _child(child) as process:
        reference = _stock_logits(source, ids, process, keep=keep, **how)
        return verify_reload(folder, reference, ids, child=process, **how)


def _stock_logits(folder: Path, ids: np.ndarray, child: Child | None, **request: Any) -> np.ndarray:
    with tempfile.TemporaryDirectory() as scratch, _child(child) as process:
        out = Path(scratch, "logits.npy")
        try:
            block = ids[:LONGEST_BLOCK].tolist()
            process.ask(folder=str(folder.absolute()), ids=block, out=str(out), **request)
        except ChildError as error:
            raise ArtifactError(f"Stock transformers could not load and run {folder}: {error}.") from error
        logits: np.ndarray = np.load(out, allow_pickle=False)
    return logits


@contextlib.contextmanager
def _child(given: Child | None) -> Iterator[Child]:
    if given is not None:
        yield given
        return
    with stock_process() as fresh:
        yield fresh
