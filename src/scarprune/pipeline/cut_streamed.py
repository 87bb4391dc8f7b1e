"""Cutting and judging a model whose layers are streamed: folder to folder, and the result streamed too."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from scarprune.cut.card import Quality, write_card
from scarprune.cut.report import CutReport
from scarprune.cut.stream import cut_folder
from scarprune.cut.verify import verify_folder
from scarprune.errors import UnsupportedModelError
from scarprune.evaluate.perplexity import Perplexity, perplexity
from scarprune.models.checkpoint import open_checkpoint
from scarprune.models.source import Origin, origin_of
from scarprune.pipeline.inputs import Loading
from scarprune.plan.plan import Plan
from scarprune.runtime.memory import available_bytes
from scarprune.runtime.progress import remark
from scarprune.text.blocks import Blocks

_SHARE_OF_FREE = 0.8  # of CPU memory, for a model that stock transformers loads whole


def streamed_source(model: Any, compensate: str) -> Origin:
    """The folder that a streamed ``model`` comes from, to be cut as it lies.

    Raises:
        UnsupportedModelError: it comes from elsewhere, or what goes is to be compensated.
    """
    origin = origin_of(model)
    if origin is None or origin.gguf:
        raise UnsupportedModelError(
            "The layers of this model are streamed, and only a folder can be cut without loading it.",
            hint="Use more --memory.",
        )
    if compensate != "none":
        raise UnsupportedModelError(
            f"The layers of this model are streamed, and {compensate!r} is fitted to it in memory.",
            hint="Use --compensate none, or more --memory.",
        )
    return origin


def cut_streamed(
    model: Any,
    plan: Plan,
    out: Path,
    evaluation: Blocks,
    quality: Callable[[Perplexity], Quality],
    *,
    batch: Any = "auto",
    save_dtype: str | None = None,
    pad: bool = False,
    loading: Loading = Loading(),
) -> tuple[Perplexity, CutReport]:
    """Cut the folder that ``model`` is streamed from, and judge what was written, streamed again.

    Every tensor is compared with its slice of the source; stock transformers' logits too, where the model
    fits whole into CPU memory.
    """
    origin = streamed_source(model, "none")
    remote = loading.trust_remote_code
    report = cut_folder(
        origin.path,
        plan,
        out,
        save_dtype=save_dtype,
        pad=pad,
        trust_remote_code=remote,
        source_name=origin.source,
    )
    if open_checkpoint(origin.path).nbytes <= _SHARE_OF_FREE * available_bytes(torch.device("cpu")):
        difference = verify_folder(
            origin.path, plan, out, dtype=save_dtype or "auto", trust_remote_code=remote
        )
        report = replace(report, max_logit_difference=difference)
    else:
        remark(
            "Every tensor was compared with its slice; the model is too large to reload whole beside that."
        )
    small, _ = replace(loading, revision=None).load(str(out), streamed=True)
    pruned = perplexity(small, evaluation, batch=batch)
    write_card(out, out.name, origin.source, plan, report, quality(pruned), origin.path)
    return pruned, report
