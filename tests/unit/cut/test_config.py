"""A cut changes one number of a config, under the family's own name for it."""

import pytest

from scarprune.cut.config import config_of_cut
from scarprune.errors import PlanError
from scarprune.models.family import family_of
from support.plans import random_plan
from support.tiny_models import tiny_model


@pytest.fixture(scope="module")
def plan():
    return random_plan(tiny_model("llama"), 20)


def changed(config, plan, width=20, dtype=None):
    return config_of_cut(config, family_of(config), plan, width, dtype)


def test_the_width_changes_and_the_order_stays(plan):
    config = {"b": 1, "intermediate_size": 48, "model_type": "llama", "a": {"intermediate_size": 48}}
    found = changed(config, plan)
    assert list(found.items()) == list({**config, "intermediate_size": 20}.items())
    assert config["intermediate_size"] == 48


def test_null_and_missing_widths_become_numbers(plan):
    assert changed({"model_type": "gpt2", "n_inner": None}, plan) == {"model_type": "gpt2", "n_inner": 20}
    assert changed({"model_type": "falcon"}, plan)["ffn_hidden_size"] == 20


def test_a_wrapped_models_width_is_in_its_text_config(plan):
    text = {"model_type": "gemma3_text", "intermediate_size": 48}
    config = {"model_type": "gemma3", "text_config": text, "vision_config": {"intermediate_size": 48}}
    assert changed(config, plan) == {**config, "text_config": {**text, "intermediate_size": 20}}


def test_a_plan_that_removes_nothing_changes_nothing(plan):
    assert changed({"model_type": "gpt2", "n_inner": None}, plan, 48) == {
        "model_type": "gpt2",
        "n_inner": None,
    }


def test_a_config_of_another_width_is_refused(plan):
    with pytest.raises(PlanError, match="the config's intermediate_size is 64"):
        changed({"model_type": "llama", "intermediate_size": 64}, plan)


def test_the_dtype_is_set_under_the_name_it_has(plan):
    old = {"model_type": "llama", "torch_dtype": "float32"}
    assert changed(old, plan, 48, "bfloat16") == {"model_type": "llama", "torch_dtype": "bfloat16"}
    assert changed({"model_type": "llama"}, plan, 48, "bfloat16")["dtype"] == "bfloat16"
