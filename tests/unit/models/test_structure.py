import pytest
import torch

from scarprune.errors import UnsupportedModelError
from scarprune.models.family import family_of
from scarprune.models.find import find_sites
from scarprune.models.structure import detect_family
from support.odd_model import odd_model
from support.tiny_models import FIXED_WIDTH, TINY_FAMILIES, tiny_model

WHERE = ("kind", "layers", "gate", "up", "down")


@pytest.mark.parametrize("model_type", TINY_FAMILIES)
def test_structure_alone_finds_what_each_family_declares(model_type):
    model = tiny_model(model_type)
    found, declared = detect_family(model), family_of(model.config)
    assert {key: getattr(found, key) for key in WHERE} == {key: getattr(declared, key) for key in WHERE}
    assert (found.width_fixed is not None) == (model_type in FIXED_WIDTH)
    assert found.width_key == ("" if model_type in FIXED_WIDTH else declared.width_key)


@pytest.mark.parametrize(
    ("flavour", "kind", "gate", "up"),
    [
        ("gated", "gated", "ferry.east", "ferry.west"),
        ("plain", "plain", None, "ferry.west"),
        ("valved", "plain", None, "ferry.west"),
        ("fused", "fused", "ferry.both", "ferry.both"),
    ],
)
def test_unusual_names_and_equal_shapes_do_not_mislead(flavour, kind, gate, up):
    family = detect_family(odd_model(flavour))
    assert (family.kind, family.gate, family.up, family.down) == (kind, gate, up, "ferry.home")
    assert (family.layers, family.width_key, family.width_fixed) == ("trunk.ladder", "breadth", None)


def test_a_padding_token_of_zeros_hides_nothing():
    model = tiny_model("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[0] = 0
    assert detect_family(model).gate == "mlp.gate_proj"


def test_a_model_in_training_mode_is_left_in_it():
    model = odd_model().train()
    detect_family(model)
    assert model.training


def test_detection_leaves_no_hook_and_no_gradient():
    model = odd_model()
    detect_family(model)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_channels_that_a_norm_mixes_are_refused():
    with pytest.raises(UnsupportedModelError, match=r"No feed-forward network of a known shape.*'oddity'"):
        find_sites(odd_model("normed"))


def test_experts_are_refused_by_their_modules_too():
    with pytest.raises(UnsupportedModelError, match="'oddity' is a mixture of experts"):
        find_sites(odd_model("experts"))


def test_find_sites_says_once_that_it_went_by_structure(capsys):
    model = odd_model()
    sites = find_sites(model)
    assert [site.name for site in sites] == ["trunk.ladder.0.ferry.home", "trunk.ladder.1.ferry.home"]
    assert [(site.layer, site.width, site.hidden, site.gated) for site in sites] == [
        (0, 48, 32, True),
        (1, 48, 32, True),
    ]
    said = capsys.readouterr().err
    assert "oddity is no family scarprune knows" in said
    assert "ferry.east and ferry.west -> ferry.home in trunk.ladder" in said
    assert find_sites(model) == sites
    assert capsys.readouterr().err == ""


def test_bfloat16_changes_nothing():
    assert detect_family(odd_model().to(torch.bfloat16)) == detect_family(odd_model())
