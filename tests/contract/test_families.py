"""Every family of the table, the whole way: profile, plan, masks, cut, save, stock reload.

The reload happens in one worker process that never imports scarprune.
"""

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from scarprune.cut.prune import prune_model
from scarprune.cut.save import save_model
from scarprune.cut.stream import cut_folder
from scarprune.cut.verify import reference_logits, stock_process, verify_reload
from scarprune.errors import UnsupportedModelError
from scarprune.evaluate.masks import masked
from scarprune.evaluate.perplexity import perplexity
from scarprune.models.family import family_of
from scarprune.models.load import load_model
from scarprune.plan.plan import load_plan, make_plan
from scarprune.profile.run import profile_model
from scarprune.text.blocks import Blocks
from support.odd_model import odd_model
from support.tiny_models import FIXED_WIDTH, TINY_FAMILIES, tiny_model, token_blocks
from support.tiny_wrappers import TINY_WRAPPERS, tiny_wrapper

CUTTABLE = [model_type for model_type in TINY_FAMILIES if model_type not in FIXED_WIDTH]
DTYPES = ["float32", "bfloat16"]
# Logits of the cut against the masked model, of the largest: the same products, added in another order.
CLOSE = {"float32": 1e-5, "bfloat16": 2**-6}
PROBE = token_blocks(1, 24, seed=7)


def _blocks(ids):
    lengths = np.full(len(ids), ids.shape[1])
    return Blocks(
        ids=ids.numpy(), lengths=lengths, bytes=None, protocol="tokens", source="random ids", bos=True
    )


CALIBRATION, EVALUATION = _blocks(token_blocks(8, 16)), _blocks(token_blocks(4, 16, seed=1))


@pytest.fixture(scope="module")
def worker():
    with stock_process() as process:
        yield process


def _logits(model):
    with torch.no_grad():
        return model(PROBE).logits.float()


def _profile_and_plan(model):
    profile = profile_model(model, CALIBRATION, batch=4)
    return profile, make_plan(profile, "scar_prot", 0.5, multiple_of=8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("model_type", CUTTABLE)
def test_from_profile_to_stock_reload(model_type, dtype, worker, tmp_path):
    tiny_model(model_type).to(getattr(torch, dtype)).save_pretrained(tmp_path / "source")
    model, _ = load_model(
        tmp_path / "source", dtype
    )  # casting in memory would round the rotary embedding as well
    dense = _logits(model)
    profile, plan = _profile_and_plan(model)
    assert {len(keep) for keep in plan.keep.values()} == {24}
    assert all(set(plan.core[name]) <= set(keep) for name, keep in plan.keep.items())

    with masked(model, plan):
        zeroed, judged = _logits(model), perplexity(model, EVALUATION)
    reference = reference_logits(model, plan, PROBE[0].numpy())
    assert torch.equal(_logits(model), dense)

    report = prune_model(model, plan)
    assert report.parameters_after < report.parameters_before
    allowed = CLOSE[dtype] * float(zeroed.abs().max())
    assert float((_logits(model) - zeroed).abs().max()) <= allowed
    assert float((zeroed - dense).abs().max()) > allowed

    def check(folder):
        verify_reload(folder, reference, PROBE[0].numpy(), child=worker)

    save_model(model, None, tmp_path / "out", plan=plan, check=check)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config[family_of(config).width_key] == 24
    assert load_plan(tmp_path / "out" / "scarprune-plan.json").keep.keys() == plan.keep.keys()

    again, _ = load_model(tmp_path / "out", dtype)
    assert torch.equal(_logits(again), _logits(model))
    assert perplexity(again, EVALUATION).nats_per_token == pytest.approx(
        judged.nats_per_token, rel=CLOSE[dtype]
    )
    assert profile.fingerprint == plan.fingerprint


@pytest.mark.parametrize("model_type", FIXED_WIDTH)
def test_a_width_fixed_in_code_is_planned_and_masked_but_not_cut(model_type):
    model = tiny_model(model_type)
    _, plan = _profile_and_plan(model)
    assert {len(keep) for keep in plan.keep.values()} == {64}
    before = perplexity(model, EVALUATION).nats_per_token
    with masked(model, plan):
        assert perplexity(model, EVALUATION).nats_per_token != before
    with pytest.raises(UnsupportedModelError, match=f"{model_type} cannot be cut: its code fixes"):
        prune_model(model, plan)
    assert perplexity(model, EVALUATION).nats_per_token == before


@pytest.mark.parametrize("flavour", ["gated", "plain", "fused"])
def test_an_architecture_nobody_declared(flavour, tmp_path):
    model = odd_model(flavour)
    _, plan = _profile_and_plan(model)
    with masked(model, plan):
        zeroed = _logits(model)
    prune_model(model, plan)
    torch.testing.assert_close(_logits(model), zeroed, rtol=1e-5, atol=1e-5)
    save_model(model, None, tmp_path / "out", plan=plan)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["breadth"] == 24
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(_logits(again), _logits(model))


@pytest.mark.parametrize("name", TINY_WRAPPERS)
def test_a_multimodal_wrapper_is_cut_in_its_language_model(name, worker, tmp_path):
    tiny_wrapper(name).save_pretrained(tmp_path / "source")
    model, _ = load_model(tmp_path / "source")
    text = _blocks(token_blocks(8, 16) % 90)
    plan = make_plan(profile_model(model, text, batch=4), "scar_prot", 0.5, multiple_of=8)
    reference = reference_logits(model, plan, text.ids[0])
    cut_folder(tmp_path / "source", plan, tmp_path / "streamed")
    verify_reload(tmp_path / "streamed", reference, text.ids[0], child=worker)
    prune_model(model, plan)
    save_model(model, None, tmp_path / "out", plan=plan)
    verify_reload(tmp_path / "out", reference, text.ids[0], child=worker)
    configs = [json.loads((tmp_path / out / "config.json").read_text()) for out in ("streamed", "out")]
    assert [config["text_config"]["intermediate_size"] for config in configs] == [24, 24]
    assert [config["vision_config"]["intermediate_size"] for config in configs] == [40, 40]


# Options of an architecture that change where its channels are read, written or biased.
VARIANTS = {
    "llama with biases": ("llama", {"mlp_bias": True}),
    "llama with tied embeddings": ("llama", {"tie_word_embeddings": True}),
    "granite with biases": ("granite", {"mlp_bias": True}),
    "falcon, new decoder": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": True}),
    "falcon, serial with ALiBi": ("falcon", {"parallel_attn": False, "alibi": True, "multi_query": False}),
    "stablelm, parallel": ("stablelm", {"use_parallel_residual": True, "qk_layernorm": True}),
    "gpt_neox, serial": ("gpt_neox", {"use_parallel_residual": False}),
    "opt, norm after": ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 32}),
    "opt without biases": ("opt", {"enable_bias": False}),
    "starcoder2 without biases": ("starcoder2", {"use_bias": False}),
    "nemotron with biases": ("nemotron", {"mlp_bias": True}),
    "cohere with norms of queries": ("cohere", {"use_qk_norm": True}),
    "phi, partly rotary": ("phi", {"qk_layernorm": True}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_options_of_the_architecture(name):
    model_type, options = VARIANTS[name]
    model = tiny_model(model_type, **options)
    assert {key: getattr(model.config, key) for key in options} == options
    _, plan = _profile_and_plan(model)
    with masked(model, plan):
        zeroed = _logits(model)
    prune_model(model, plan)
    torch.testing.assert_close(_logits(model), zeroed, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "key"), [("gpt2", "n_inner"), ("gptj", "n_inner"), ("gpt_neo", "intermediate_size")]
)
def test_a_width_of_null_means_4_d_and_is_a_number_after_the_cut(model_type, key):
    model = tiny_model(model_type, **{key: None})
    assert getattr(model.config, key) is None
    _, plan = _profile_and_plan(model)
    prune_model(model, plan)
    assert getattr(model.config, key) == 4 * 32 // 2


@pytest.mark.parametrize("model_type", ["llama", "phi3", "opt", "gpt2"])
def test_every_kind_of_network_goes_the_way_of_a_global_plan_as_masks(model_type):
    model = tiny_model(model_type)
    profile = profile_model(model, CALIBRATION, batch=4, redundancy=False)
    plan = make_plan(profile, "loss_proxy", 0.4, allocation="global")
    assert sum(plan.widths.values()) == round(0.6 * 96)
    with masked(model, plan):
        assert np.isfinite(perplexity(model, EVALUATION).nats_per_token)
