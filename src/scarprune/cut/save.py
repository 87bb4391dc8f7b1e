"""A model in memory to a folder that stock transformers loads, with its plan and a model card."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from scarprune.artifacts import atomic_folder, refuse_existing
from scarprune.cut.card import Quality, Training, write_card
from scarprune.cut.dtypes import saved_dtypes
from scarprune.cut.prune import report_of
from scarprune.cut.travel import PLAN, refuse_overlap, write_config
from scarprune.models.checkpoint import CONFIG, read_object
from scarprune.models.quiet import quiet
from scarprune.models.source import origin_of
from scarprune.plan.plan import Plan


def save_model(
    model: Any,
    tokenizer: Any | None,
    out: str | Path,
    plan: Plan | None = None,
    overwrite: bool = False,
    save_dtype: str | None = None,
    *,
    quality: Quality | None = None,
    training: Training | None = None,
    check: Callable[[Path], object] | None = None,
) -> None:
    """Save a model as safetensors with config, tokenizer and generation config, whole or not at all.

    Args:
        model: cut or not; it stays as it is.
        tokenizer: None where the model has none.
        out: the new folder; it appears when it is whole.
        plan: what was cut; it travels along, and the model card tells of it.
        overwrite: replace what is at ``out``.
        save_dtype: ``float32``, ``bfloat16`` or ``float16``; where None as the source stores each tensor,
            bfloat16 for a GGUF file.
        quality: perplexities for the model card.
        training: for the model card, what ``model`` learned after the cut.
        check: called with the folder before it takes its name; what it raises leaves nothing behind.

    Raises:
        ArtifactError: an existing ``out``, a full disk.
        ArgumentError: ``out`` overlaps with the folder the model came from, an unknown dtype.
        PlanError: the model was not cut by ``plan``.
    """
    out = Path(out)
    origin = origin_of(model)
    if origin is not None and origin.path.is_dir():
        refuse_overlap(origin.path, out)
    refuse_existing(out, overwrite)
    dtypes = saved_dtypes(model, save_dtype)
    report = None if plan is None else report_of(model, plan, save_dtype)
    with atomic_folder(out, overwrite=overwrite) as folder:
        with quiet(), _generation_config_as_it_is(model, folder):
            model.save_pretrained(folder, state_dict=_cast(model, dtypes))
        _state_dtype(folder, dtypes[next(iter(dict(model.named_parameters())))])
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
        if plan is not None and report is not None:
            plan.save(folder / PLAN)
            source = model.config._name_or_path or type(model).__name__ if origin is None else origin.source
            source = source if training is None else training.teacher
            write_card(folder, out.name, source, plan, report, quality, training=training)
        if check is not None:
            check(folder)


@contextlib.contextmanager
def _generation_config_as_it_is(model: Any, folder: Path) -> Iterator[None]:
    """Save the generation config unjudged: ``save_pretrained`` refuses some that published models have."""
    kept = getattr(model, "generation_config", None)
    if kept is None:
        yield
        return
    model.generation_config = type(kept)()
    try:
        yield
    finally:
        model.generation_config = kept
    kept.to_json_file(folder / "generation_config.json")


def _cast(model: Any, dtypes: dict[str, torch.dtype]) -> dict[str, torch.Tensor]:
    """The state dict on the CPU in its dtypes; tied tensors stay one, as ``save_pretrained`` expects."""
    done: dict[tuple[Any, ...], torch.Tensor] = {}
    state = {}
    for name, tensor in model.state_dict().items():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), dtypes[name])
        if tensor.is_meta or key not in done:
            done[key] = tensor if tensor.is_meta else tensor.to("cpu", dtypes[name])
        state[name] = done[key]
    return state


def _state_dtype(folder: Path, dtype: torch.dtype) -> None:
    """Make the config name the dtype that was saved, where the model was computed with in another."""
    config = read_object(folder / CONFIG)
    for part in (config, config.get("text_config")):
        if isinstance(part, dict) and "dtype" in part:
            part["dtype"] = str(dtype).removeprefix("torch.")
    write_config(folder, config)
