import pytest

from scarprune.errors import UnsupportedModelError
from scarprune.models.supports import refuse_cut
from support.tiny_models import FIXED_WIDTH, TINY_FAMILIES, tiny_config, tiny_model


@pytest.mark.parametrize("model_type", [name for name in TINY_FAMILIES if name not in FIXED_WIDTH])
def test_families_can_be_cut(model_type):
    refuse_cut(tiny_config(model_type))


@pytest.mark.parametrize("model_type", FIXED_WIDTH)
def test_a_width_fixed_in_code_is_given_as_the_reason(model_type):
    for form in (tiny_model(model_type), tiny_config(model_type), tiny_config(model_type).to_dict()):
        with pytest.raises(
            UnsupportedModelError, match=rf"{model_type} cannot be cut: its code fixes .* 4 times"
        ):
            refuse_cut(form)


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "fp8"])
def test_quantized_weights_are_not_cut(method):
    config = {"model_type": "llama", "quantization_config": {"quant_method": method}}
    with pytest.raises(
        UnsupportedModelError, match=rf"quantized \({method}\), and only plain ones can be cut"
    ):
        refuse_cut(config)
    with pytest.raises(UnsupportedModelError, match="quantized"):
        refuse_cut({"model_type": "gemma3", "text_config": config})


def test_an_adapter_is_merged_first():
    model = tiny_model("llama")
    model._hf_peft_config_loaded = True
    with pytest.raises(UnsupportedModelError, match=r"adapter cannot be cut.*merge_and_unload"):
        refuse_cut(model)


def test_experts_are_refused():
    with pytest.raises(UnsupportedModelError, match="mixture of experts"):
        refuse_cut({"model_type": "mixtral", "num_local_experts": 8})
