"""What cannot be cut, and why; no torch needed to say so."""

from typing import Any

from scarprune.errors import UnsupportedModelError
from scarprune.models.checkpoint import MERGE
from scarprune.models.family import known_family, read, text_config


def refuse_cut(model_or_config: Any) -> None:
    """Refuse a model, its config, or the dict of a config.json that can be measured but not cut.

    Raises:
        UnsupportedModelError: the architecture fixes its width, the weights are quantized or have an
            adapter, or the model is a mixture of experts.
    """
    inner = read(model_or_config, "config")
    config = model_or_config if inner is None else inner
    model_type = read(text_config(config), "model_type")
    family = known_family(config)
    if family is None and hasattr(model_or_config, "named_modules"):
        from scarprune.models.find import family_of_model  # it brings torch, which a config does without

        family = family_of_model(model_or_config)
    if family is not None and family.width_fixed is not None:
        raise UnsupportedModelError(
            f"{model_type} cannot be cut: {family.width_fixed}.",
            hint="It can be profiled, planned and evaluated with the plan as masks.",
        )
    quantization = read(config, "quantization_config") or read(text_config(config), "quantization_config")
    if quantization is not None:
        method = read(quantization, "quant_method")
        method = getattr(method, "value", method) or "some method"
        raise UnsupportedModelError(
            f"This model's weights are quantized ({method}), and only plain ones can be cut.",
            hint="Cut the unquantized model and quantize the result.",
        )
    if read(model_or_config, "_hf_peft_config_loaded") or read(model_or_config, "peft_config"):
        raise UnsupportedModelError("A model with an adapter cannot be cut.", hint=MERGE)
