"""Loading a causal language model for measuring: checked, frozen, in evaluation mode."""

import importlib.util
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from scarprune.errors import (
    ArgumentError,
    ArtifactError,
    NumericsError,
    UnsupportedModelError,
)
from scarprune.models.checkpoint import (
    ADAPTER,
    ADAPTER_WEIGHTS,
    CONFIG,
    MERGE,
    Checkpoint,
    open_checkpoint,
    read_config,
)
from scarprune.models.failures import as_sentences
from scarprune.models.family import known_family, read
from scarprune.models.fingerprint import carry_fingerprint, fingerprint_folder, fingerprint_model
from scarprune.models.gguf import dequantized, parsed_once
from scarprune.models.quiet import quiet
from scarprune.models.skeleton import fill_streamed, skeleton
from scarprune.models.source import Origin, carry_origin, locate
from scarprune.models.streamed import stream
from scarprune.models.tensor_parallel import compute_on_plain_tensors, held, in_parts, refuse_without_plan
from scarprune.models.tokenizer import tokenizer_of
from scarprune.runtime.device import has_others, resolve_device, resolve_dtype
from scarprune.runtime.memory import available_bytes, gib
from scarprune.runtime.progress import remark
from scarprune.runtime.ranks import ALONE, Ranks

_SHARE_OF_FREE = 0.8  # of the memory that float32 weights may take; activations need the rest
_STORED_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


def load_model(
    source: str | Path,
    dtype: str = "auto",
    device: str = "auto",
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
    device_map: str | dict[str, Any] | None = None,
    ranks: Ranks = ALONE,
    streamed: bool = False,
) -> tuple[Any, Any | None]:
    """Load a model and its tokenizer; the tokenizer is None where there is none.

    Args:
        source: a folder, a hub id, a ``.gguf`` file, or ``demo`` (the built-in model).
        dtype: ``float32``, ``bfloat16``, ``float16``; ``auto`` is the checkpoint's on a GPU, float32 on a CPU
            where it fits.
        device: ``auto`` takes the GPU that is there.
        revision: branch, tag or commit of a hub id.
        trust_remote_code: run Python code that comes with the model.
        device_map: ``auto`` or a dict, as accelerate takes it, to spread the weights over devices.
        ranks: from ``find_ranks``; where they hold a copy in parts, this process is given its own.
        streamed: leave the layers where they are, in the checkpoint's files (a ``.gguf`` file's in CPU
            memory), and bring one at a time to the device when it computes.

    Raises:
        ArtifactError: nothing there, no model, or damaged files.
        UnsupportedModelError: an architecture or a format of weights that cannot be measured or divided.
        NumericsError: weights that are NaN or infinite, by name.
        MemoryBudgetError: the weights do not fit.
        ArgumentError: an unknown dtype or device.
    """
    if device_map is not None and device != "auto":
        raise ArgumentError(f"device_map says where the weights go; device={device!r} cannot say it as well.")
    if ranks.parts > 1 and streamed:
        raise ArgumentError(
            f"A model in {ranks.parts} parts has each of them whole on its device, not streamed."
        )
    if device_map is not None and streamed:
        raise ArgumentError(f"Streamed layers have one device; device_map={device_map!r} spreads them.")
    origin = locate(source, revision, code=trust_remote_code)
    place = resolve_device(device)
    with parsed_once(origin):
        if ranks.parts > 1:
            model = _load_part(origin, dtype, place, ranks, trust_remote_code)
        elif origin.gguf and streamed:
            model = stream(_load_gguf(origin, dtype, torch.device("cpu"), None), place)
        elif origin.gguf:
            model = _load_gguf(origin, dtype, place, device_map)
        elif streamed:
            model = _load_streamed(origin, dtype, place, trust_remote_code)
        elif _is_adapter(origin.path):
            model = _load_adapter(origin, dtype, place, device_map)
        else:
            model = _load_folder(origin, dtype, place, device_map, trust_remote_code)
        tokenizer = tokenizer_of(origin, trust_remote_code=trust_remote_code)
    _refuse_non_finite(model, origin)
    model.requires_grad_(False).eval()
    carry_origin(model, origin)
    whole_folder = not origin.gguf and not _is_adapter(origin.path)
    carry_fingerprint(model, fingerprint_folder(origin.path) if whole_folder else fingerprint_model(model))
    return model, tokenizer


def load_config(origin: Origin, *, trust_remote_code: bool = False) -> Any:
    """The config of a model.

    Raises:
        ArtifactError: no model there, or a damaged config.
        UnsupportedModelError: an architecture that transformers does not know, or a mixture of experts.
    """
    if origin.gguf:
        folder, extra = origin.path.parent, {"gguf_file": origin.path.name}
    else:
        folder, extra = origin.path, {}
        stored = read_config(folder)
        known_family(stored)  # experts are refused before anything else is said
    with as_sentences(origin, trust_remote_code=trust_remote_code), quiet():
        config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, **extra)
    known_family(config)
    return config


# -- one way for each kind of source ---------------------------------------------------------------


def _load_folder(
    origin: Origin, dtype: str, device: torch.device, device_map: Any, trust_remote_code: bool
) -> Any:
    config = load_config(origin, trust_remote_code=trust_remote_code)
    checkpoint = open_checkpoint(origin.path)
    quantized = read(config, "quantization_config") is not None
    chosen = _dtype_of(checkpoint, dtype, device)
    if device.type == "cpu" and dtype == "auto" and chosen != torch.float32 and not quantized:
        remark(
            f"In float32 the weights would take {gib(_float32_bytes(checkpoint))}, more than is free here: "
            f"computing in {str(chosen).removeprefix('torch.')}."
        )
    return _from_pretrained(
        origin,
        auto_class(config),
        trust_remote_code=trust_remote_code,
        config=config,
        dtype="auto" if quantized and dtype == "auto" else chosen,
        use_safetensors=True,
        device_map=_device_map(device, device_map, _float32_bytes(checkpoint) * chosen.itemsize // 4),
    )


def outline(
    source: str | Path,
    dtype: str = "auto",
    device: str = "auto",
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Any | None:
    """The model that ``load_model`` would load whole, with shapes and dtype and no values in its weights.

    None where nothing is known beforehand: an adapter, quantized weights, or no declared family.

    Raises:
        ArtifactError: nothing there, no model, or damaged files.
        UnsupportedModelError: an architecture that cannot be measured.
    """
    origin = locate(source, revision, code=trust_remote_code)
    if not origin.gguf and _is_adapter(origin.path):
        return None
    with parsed_once(origin):
        config = load_config(origin, trust_remote_code=trust_remote_code)
    if read(config, "quantization_config") is not None or known_family(config) is None:
        return None
    place = resolve_device(device)
    if origin.gguf:
        chosen = resolve_dtype(dtype, torch.bfloat16, place, fits=False)
    else:
        chosen = _dtype_of(open_checkpoint(origin.path), dtype, place)
    with as_sentences(origin, trust_remote_code=trust_remote_code):
        return skeleton(auto_class(config), config, chosen, trust_remote_code=trust_remote_code)


def _dtype_of(checkpoint: Checkpoint, dtype: str, device: torch.device) -> torch.dtype:
    fits = _fits(_float32_bytes(checkpoint), device)
    return resolve_dtype(dtype, _stored_dtype(checkpoint), device, fits)


def _load_streamed(origin: Origin, dtype: str, device: torch.device, trust_remote_code: bool) -> Any:
    if _is_adapter(origin.path):
        raise UnsupportedModelError(f"{origin.path} holds an adapter, which cannot be streamed.", hint=MERGE)
    config = load_config(origin, trust_remote_code=trust_remote_code)
    if read(config, "quantization_config") is not None:
        raise UnsupportedModelError(f"The weights of {origin.source} are quantized, and cannot be streamed.")
    checkpoint = open_checkpoint(origin.path)
    chosen = resolve_dtype(dtype, _stored_dtype(checkpoint), device)
    with as_sentences(origin, trust_remote_code=trust_remote_code):
        model = skeleton(auto_class(config), config, chosen, trust_remote_code=trust_remote_code)
    fill_streamed(model, checkpoint, device)
    return model


def _load_gguf(origin: Origin, dtype: str, device: torch.device, device_map: Any) -> Any:
    config = load_config(origin)
    automatic = auto_class(config)
    with torch.device("meta"), quiet():
        parameters = automatic.from_config(config).num_parameters()
    fits = _fits(4 * parameters, device)
    chosen = resolve_dtype(dtype, None if fits else torch.bfloat16, device, fits)
    return _from_pretrained(
        origin,
        automatic,
        gguf_file=origin.path.name,
        config=config,
        dtype=chosen,
        device_map=_device_map(device, device_map, parameters * chosen.itemsize),
        **dequantized(),
    )


def _load_adapter(origin: Origin, dtype: str, device: torch.device, device_map: Any) -> Any:
    """A base model with its adapter, as transformers puts them together where peft is installed."""
    if importlib.util.find_spec("peft") is None:
        raise UnsupportedModelError(f"{origin.path} holds an adapter, not a whole model.", hint=MERGE)
    if not (origin.path / ADAPTER_WEIGHTS).is_file():
        raise ArtifactError(f"{origin.path} is incomplete: it has no {ADAPTER_WEIGHTS}.")
    return _from_pretrained(
        origin,
        AutoModelForCausalLM,
        dtype=resolve_dtype(dtype, torch.bfloat16, device),
        use_safetensors=True,
        device_map=_device_map(device, device_map, 0),
    )


def _load_part(
    origin: Origin, dtype: str, device: torch.device, ranks: Ranks, trust_remote_code: bool
) -> Any:
    """This process's part of the model in a folder."""
    if origin.gguf or _is_adapter(origin.path):
        raise UnsupportedModelError(
            f"{origin.source} is no folder of safetensors files, so --tp {ranks.parts} cannot be."
        )
    config = load_config(origin, trust_remote_code=trust_remote_code)
    if read(config, "quantization_config") is not None:
        raise UnsupportedModelError(f"{origin.source} is quantized, so --tp {ranks.parts} cannot be.")
    refuse_without_plan(config, auto_class(config), ranks.parts)
    checkpoint = open_checkpoint(origin.path)
    fits = _fits(_float32_bytes(checkpoint) // ranks.parts, device)
    with in_parts(ranks, device) as options:
        model = _from_pretrained(
            origin,
            auto_class(config),
            trust_remote_code=trust_remote_code,
            config=config,
            dtype=resolve_dtype(dtype, _stored_dtype(checkpoint), device, fits),
            use_safetensors=True,
            **options,
        )
    model.requires_grad_(False)
    compute_on_plain_tensors(model, ranks)
    return model


def _is_adapter(path: Path) -> bool:
    return (path / ADAPTER).is_file() and not (path / CONFIG).is_file()


def auto_class(config: Any) -> Any:
    """The class of transformers that loads ``config``'s model: a multimodal wrapper whole, where it can.

    Raises:
        UnsupportedModelError: neither a causal language model nor a wrapper around one that can be loaded.
    """
    text = read(config, "text_config")
    if text is not None and type(config) in AutoModelForImageTextToText._model_mapping:
        return AutoModelForImageTextToText
    remote = "AutoModelForCausalLM" in (read(config, "auto_map") or {})
    if remote or type(config) in AutoModelForCausalLM._model_mapping:
        return AutoModelForCausalLM
    inner = None if text is None else AutoModelForCausalLM._model_mapping.get(type(text), None)
    raise UnsupportedModelError(
        f"{read(config, 'model_type')!r} is not a causal language model that transformers can load.",
        hint=None if inner is None else f"Save its language model alone, as {inner.__name__}, and use that.",
    )


# -- what they share -------------------------------------------------------------------------------


def _from_pretrained(
    origin: Origin, automatic: Any, *, trust_remote_code: bool = False, **options: Any
) -> Any:
    folder = origin.path.parent if origin.gguf else origin.path
    with as_sentences(origin, trust_remote_code=trust_remote_code), quiet():
        model, info = automatic.from_pretrained(
            folder, trust_remote_code=trust_remote_code, output_loading_info=True, **options
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ArtifactError(
            f"{origin.path} is incomplete: {len(missing)} tensors of the model are not in it, "
            f"the first is {missing[0]}."
        )
    return model


def _device_map(device: torch.device, device_map: Any, nbytes: int) -> Any:
    """Where accelerate puts weights of ``nbytes``: on one device, or over all GPUs where one is too small."""
    if device_map is not None:
        return device_map
    if has_others(device) and not _fits(nbytes, device):
        remark(f"The weights take {gib(nbytes)}, more than one GPU holds: their layers are spread over all.")
        return "auto"
    return None if device.type == "cpu" else {"": device}


def _stored_dtype(checkpoint: Checkpoint) -> torch.dtype | None:
    return _STORED_DTYPES.get(checkpoint.dtype or "")


def _float32_bytes(checkpoint: Checkpoint) -> int:
    return 4 * sum(tensor.items for tensor in checkpoint.tensors.values())


def _fits(nbytes: int, device: torch.device) -> bool:
    return nbytes <= _SHARE_OF_FREE * available_bytes(device)


def _refuse_non_finite(model: nn.Module, origin: Origin) -> None:
    bad = []
    for name, parameter in model.named_parameters():
        if parameter.is_meta or not parameter.is_floating_point() or held(parameter).numel() == 0:
            continue
        if parameter.element_size() == 1:  # float8 has no minimum on all devices; its scales are checked
            continue
        smallest, largest = torch.aminmax(held(parameter).detach())
        if not (torch.isfinite(smallest) and torch.isfinite(largest)):
            bad.append(name)
    if bad:
        others = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
        narrow = next(p.dtype for n, p in model.named_parameters() if n == bad[0]) == torch.float16
        raise NumericsError(
            f"{origin.source} has weights that are NaN or infinite: {bad[0]}{others}.",
            hint="They may have overflowed float16: try --dtype bfloat16 or float32." if narrow else None,
        )
