import dataclasses

import pytest
from transformers import AutoConfig

from scarprune.errors import ArgumentError, UnsupportedModelError
from scarprune.models.family import families, family_of, known_family, register_family
from support.tiny_models import FIXED_WIDTH, TINY_FAMILIES, tiny_config

GATED = "llama mistral qwen2 qwen3 gemma gemma2 gemma3_text olmo olmo2 olmo3 stablelm smollm3 granite cohere"
EXPERTS = ["mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss", "deepseek_v3", "dbrx"]
PLAIN = "gpt_neox opt phi gptj gpt_neo falcon starcoder2 nemotron bloom mpt"
TABLE = {
    **dict.fromkeys((*GATED.split(), "cohere2", "exaone4"), "gated"),
    **dict.fromkeys(("phi3", "glm", "glm4"), "fused"),
    **dict.fromkeys(PLAIN.split(), "plain"),
    "gpt2": "conv1d",
}


def test_every_family_of_the_table_is_declared_with_its_kind():
    assert {family.name: family.kind for family in families()} == TABLE
    assert set(TINY_FAMILIES) == set(TABLE)


def test_families_are_listed_gated_first_and_masks_only_last():
    kinds = [family.kind for family in families() if family.width_fixed is None]
    assert kinds == sorted(kinds, key=["gated", "fused", "plain", "conv1d"].index)
    assert [family.name for family in families()][-2:] == list(FIXED_WIDTH)


def test_each_family_says_in_one_line_what_it_covers():
    assert all(family.description and "\n" not in family.description for family in families())


@pytest.mark.parametrize("model_type", TINY_FAMILIES)
def test_an_object_and_the_dict_of_a_config_json_are_the_same_to_it(model_type):
    config = tiny_config(model_type)
    assert family_of(config) is family_of(config.to_dict())
    assert model_type in family_of(config).model_types


@pytest.mark.parametrize("model_type", EXPERTS)
def test_experts_are_refused_with_a_sentence_that_says_so(model_type):
    config = AutoConfig.for_model(model_type)
    for form in (config, config.to_dict()):
        with pytest.raises(
            UnsupportedModelError, match=f"'{model_type}' is a mixture of experts; these are not supported"
        ):
            family_of(form)


def test_an_unknown_architecture_is_refused_with_the_list():
    with pytest.raises(
        UnsupportedModelError, match=r"'oddity' is not one of the architectures.*llama.*stablelm"
    ):
        family_of({"model_type": "oddity"})
    assert known_family({"model_type": "oddity"}) is None


def test_a_wrapper_belongs_to_the_family_of_its_language_model():
    config = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}
    assert family_of(config).name == "gemma3_text"


def test_a_model_type_belongs_to_one_family():
    llama = family_of({"model_type": "llama"})
    assert register_family(llama) is llama
    with pytest.raises(ArgumentError, match="'llama' already belongs to the family 'llama'"):
        register_family(dataclasses.replace(llama, name="mine"))


def test_a_gate_goes_with_a_gated_kind_alone():
    llama = family_of({"model_type": "llama"})
    with pytest.raises(ArgumentError, match=r"'mine' is plain, which does not go with gate='mlp.gate_proj'"):
        register_family(dataclasses.replace(llama, name="mine", model_types=("mine",), kind="plain"))
