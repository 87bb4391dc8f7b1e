import pytest
import torch

from scarprune.errors import UnsupportedModelError
from scarprune.models.family import family_of
from scarprune.models.find import find_sites
from scarprune.models.layout import sites_of
from scarprune.models.site import Projection
from scarprune.models.weights import bias, matrix
from support.tiny_models import FIXED_WIDTH, TINY_FAMILIES, tiny_model


@pytest.mark.parametrize("model_type", TINY_FAMILIES)
def test_sites_lie_in_layer_order_and_have_the_shapes_of_the_config(model_type):
    model = tiny_model(model_type)
    sites = find_sites(model)
    width = 128 if model_type in FIXED_WIDTH else 48
    assert [(site.layer, site.width, site.hidden) for site in sites] == [(0, width, 32), (1, width, 32)]
    for site in sites:
        assert model.get_submodule(site.name) is model.get_submodule(site.down.module)
        assert matrix(model, site.down).shape == (32, width)
        assert [matrix(model, reader).shape for reader in site.readers] == [(width, 32)] * (1 + site.gated)


@pytest.mark.parametrize("model_type", TINY_FAMILIES)
def test_projections_compute_what_the_network_computes(model_type):
    """Readers, written out as W x + b, give the down projection's input where the activation is known."""
    model = tiny_model(model_type)
    site = find_sites(model)[0]
    seen = {}
    reader, down = model.get_submodule(site.readers[0].module), model.get_submodule(site.down.module)
    reader.register_forward_hook(lambda module, args, output: seen.update(x=args[0], pre=output))
    down.register_forward_hook(lambda module, args, output: seen.update(u=args[0], out=output.clone()))
    with torch.no_grad():
        model(torch.tensor([[1, 5, 9, 4]]))
        pres = [_affine(model, projection, seen["x"]) for projection in site.readers]
        whole = torch.cat(pres, -1) if site.readers[0].parts == 2 else pres[0]
        torch.testing.assert_close(whole, seen["pre"])
        torch.testing.assert_close(_affine(model, site.down, seen["u"]), seen["out"])


def _affine(model, projection, x):
    out = x @ matrix(model, projection).T
    offset = bias(model, projection)
    return out if offset is None else out + offset


def test_a_matrix_is_a_view_of_the_stored_weight():
    for model_type in ("llama", "phi3", "gpt2"):
        model = tiny_model(model_type)
        for projection in find_sites(model)[0].projections:
            view = matrix(model, projection)
            stored = model.get_submodule(projection.module).weight
            assert view.untyped_storage().data_ptr() == stored.untyped_storage().data_ptr()


def test_the_gate_is_the_first_half_of_a_fused_projection():
    model = tiny_model("phi3")
    site = find_sites(model)[0]
    fused = model.get_submodule("model.layers.0.mlp.gate_up_proj").weight
    assert torch.equal(matrix(model, site.projections[0]), fused[:48])
    assert torch.equal(matrix(model, site.projections[1]), fused[48:])


def test_biases_of_llama_are_found_where_its_config_asks_for_them():
    model = tiny_model("llama", mlp_bias=True)
    site = find_sites(model)[0]
    assert torch.equal(bias(model, site.readers[1]), model.model.layers[0].mlp.up_proj.bias)
    assert bias(tiny_model("llama"), site.readers[1]) is None


def test_a_quantized_matrix_is_read_off_what_its_module_does():
    class Packed(torch.nn.Module):
        """Eight-bit integers with one scale, as quantizers keep them."""

        def __init__(self, linear):
            super().__init__()
            self.in_features, self.out_features = linear.in_features, linear.out_features
            self.scale = linear.weight.abs().max() / 127
            self.weight = torch.nn.Parameter((linear.weight / self.scale).round().char(), requires_grad=False)
            self.bias = linear.bias

        def forward(self, x):
            return torch.nn.functional.linear(x, self.weight.float() * self.scale, self.bias)

    model = tiny_model("gpt_neox")
    mlp = model.gpt_neox.layers[0].mlp
    expected = {name: getattr(mlp, name).weight.clone() for name in ("dense_h_to_4h", "dense_4h_to_h")}
    for name in expected:
        setattr(mlp, name, Packed(getattr(mlp, name)))
    site = find_sites(model)[0]
    assert (site.width, site.hidden) == (48, 32)
    for projection, original in zip(site.projections, expected.values(), strict=True):
        found = matrix(model, projection)
        step = float(original.detach().abs().max()) / 127
        torch.testing.assert_close(found, original, atol=0.51 * step, rtol=0)


def test_names_may_lack_or_carry_what_checkpoints_put_in_front():
    family = family_of({"model_type": "gpt2"})
    bare = {"h.0.mlp.c_fc": (32, 48), "h.0.mlp.c_proj": (48, 32), "h.0.attn.c_proj": (32, 32)}
    assert [site.name for site in sites_of(family, bare)] == ["h.0.mlp.c_proj"]
    family = family_of({"model_type": "llama"})
    shapes = {"gate_proj": (32, 48), "up_proj": (32, 48), "down_proj": (48, 32)}
    towers = ("model.language_model", "model.vision_tower.transformer")
    wrapped = {f"{tower}.layers.0.mlp.{key}": shape for tower in towers for key, shape in shapes.items()}
    assert [s.name for s in sites_of(family, wrapped)] == ["model.language_model.layers.0.mlp.down_proj"]


def test_layers_are_counted_as_numbers():
    shapes = {"gate_proj": (32, 48), "up_proj": (32, 48), "down_proj": (48, 32)}
    names = {f"model.layers.{layer}.mlp.{key}": s for layer in (10, 2, 0) for key, s in shapes.items()}
    assert [site.layer for site in sites_of(family_of({"model_type": "llama"}), names)] == [0, 2, 10]


def test_a_model_that_is_not_what_its_config_says_is_refused():
    family = family_of({"model_type": "llama"})
    with pytest.raises(
        UnsupportedModelError, match=r"family llama, but has no model\.layers\.0\.mlp\.down_proj"
    ):
        sites_of(family, {"model.layers.0.mlp.fc": (32, 48)})
    shapes = {"gate_proj": (32, 40), "up_proj": (32, 48), "down_proj": (48, 32)}
    with pytest.raises(
        UnsupportedModelError, match=r"gate_proj should read 32 and write 48 values.*\(32, 40\)"
    ):
        sites_of(family, {f"model.layers.0.mlp.{key}": shape for key, shape in shapes.items()})


def test_the_roles_come_in_order():
    site = find_sites(tiny_model("glm"))[1]
    module = "model.layers.1.mlp.gate_up_proj"
    assert site.projections == (
        Projection("gate", module, part=0, parts=2),
        Projection("up", module, part=1, parts=2),
        Projection("down", "model.layers.1.mlp.down_proj"),
    )
