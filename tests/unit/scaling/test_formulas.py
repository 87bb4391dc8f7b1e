"""Formulas against torch's own counter, against what autograd keeps, and against sums by hand."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from scarprune.cut.compensate.ridge import DAMPINGS
from scarprune.models.cost import cost_of
from scarprune.models.find import find_sites
from scarprune.models.head import find_head
from scarprune.profile.passes import prepared
from scarprune.profile.redundancy import cross_sums
from scarprune.profile.watch import watching
from scarprune.scaling import formulas
from scarprune.scaling.sizes import sizes_of
from support.operations import counted_operations
from support.tiny_models import HIDDEN, LAYERS, WIDTH, tiny_model, token_blocks

BATCH, LENGTH = 3, 7
FAMILIES = ["llama", "gemma2", "phi3", "gpt_neox", "falcon", "gpt2", "qwen3", "bloom"]


def counted(model, observer):
    """Operations that torch counts in one watched pass, forward and back."""
    sites, ids = find_sites(model), torch.as_tensor(token_blocks(BATCH, LENGTH))
    with prepared(model):
        head = find_head(model)
        with FlopCounterMode(display=False) as counter, watching(model, sites, observer), torch.enable_grad():
            logits = head.logits(head.hidden(ids)[:, :-1])
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
    return counted_operations(counter)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pass_costs_what_torch_counts(family):
    model = tiny_model(family, attn_implementation="eager")
    cost = cost_of(model)
    forward, back = cost.prefill_operations(LENGTH, every_logit=True), cost.backward_operations(LENGTH)
    # torch counts all pairs of tokens where the formulas count causal ones, and logits of a block's last
    # token are not computed.
    causal = (LENGTH + 1) / 2 / LENGTH
    scores = 4 * cost.score_size * LENGTH**2 * (1 + 2 * (LAYERS - 1) / LAYERS)
    last_logits = 2 * cost.matrices.vocabulary
    found = BATCH * (forward.total + back.total + (1 - causal) * scores - last_logits)
    assert counted(model, lambda index, u, s: None) == pytest.approx(found, rel=1e-12)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_pass_2_adds_one_product_of_the_channels_with_the_core(family):
    model = tiny_model(family, attn_implementation="eager")
    sites, sizes = find_sites(model), sizes_of(model, 4)
    core = [torch.arange(k) for k in sizes.cores()]
    plain = counted(model, lambda index, u, s: None)
    crossed = counted(model, lambda index, u, s: cross_sums(u, s, core[index]))
    assert crossed - plain == BATCH * LENGTH * formulas.cross_operations(sizes)
    assert formulas.cross_operations(sizes) == LAYERS * 2 * sites[0].width * 1


def kept_by_autograd(model, length):
    """Bytes of the distinct storages, weights aside, that a watched pass over one block saves."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with prepared(model), watching(model, find_sites(model), lambda index, u, s: None), torch.enable_grad():
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = model.base_model(torch.as_tensor(token_blocks(1, length)), use_cache=False)
        return sum(seen.values()), out


@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layers", [2, 5])
def test_what_a_layer_keeps_is_what_autograd_keeps(family, dtype, layers):
    model = tiny_model(family, num_hidden_layers=layers).to(dtype)
    found, _ = kept_by_autograd(model, 16)
    ends = 4 * (HIDDEN + 1) + 2 * 8 * dtype.itemsize  # the last norm; cosines and sines of a head
    expected = 16 * (formulas.saved_bytes(sizes_of(model, dtype.itemsize)) + ends)
    assert found == pytest.approx(expected, rel=1e-12)


def test_sizes_of_llama_8b(published):
    sizes = published("llama-3.1-8b")
    d, m, layers, vocabulary = 4096, 14336, 32, 128256
    layer = 3 * d * m + 2 * d * d + 2 * d * 1024
    assert sizes.cost.matrices.total == 2 * (layers * layer + vocabulary * d)
    # Below the first site: its attention, gate and up.
    back = sizes.cost.backward_operations(1)
    scores = 2 * 4 * d * (layers - 1)
    below = 2 * (2 * d * m + 2 * d * d + 2 * d * 1024)
    assert back.total == pytest.approx(sizes.cost.matrices.total - below + scores)
    assert sizes.cores()[0] == 143
    assert formulas.cross_operations(sizes) == layers * 2 * m * 143
    assert formulas.watched_bytes(sizes) == 2 * layers * (2 * m + d)
    assert formulas.watched_bytes(sizes, kernels=True) == 2 * (2 * m + layers * d)
    # Gate and up; q and what attention gives, k and v; two norms' inputs and divisors; a log-sum a head.
    kept = 2 * (2 * m + 2 * d + 2 * 1024 + 2 * d) + 4 * (2 + 32)
    assert formulas.saved_bytes(sizes, kernels=True) == (layers - 1) * kept + 2 * m
    assert formulas.checkpointed_bytes(sizes, kernels=True) == 2 * d * layers + kept
    assert formulas.streamed_bytes(sizes) == 2 * 2 * layers * layer
    assert formulas.tensor_parallel_bytes(sizes, backward=False) == 2 * layers * d * 2
    assert formulas.tensor_parallel_bytes(sizes, backward=True) == (2 * layers + 2 * 31) * d * 2
    assert formulas.cross_sent_bytes(sizes) == 8 * layers * m * 143
    # 41 rows that depend on the labels, 12 that do not; float64; and the squares of each network's input.
    assert formulas.sums_sent_bytes(sizes) == 8 * (layers * m * 53 + layers * d)
    assert formulas.gram_operations(sizes) == layers * 2 * m * m


@pytest.mark.parametrize(("gpus", "share"), [(1, 0), (2, 1), (8, 1.75)])
def test_a_ring_sends_everything_nearly_twice(gpus, share):
    assert formulas.all_reduce_bytes(1000, gpus) == 1000 * share


def test_the_link_is_hidden_where_both_take_as_long():
    tokens = formulas.tokens_that_hide_the_link(operations=4.0, rate=100.0, streamed=50.0, link=5.0)
    assert tokens * 4.0 / 100.0 == 50.0 / 5.0


def test_least_squares_solves_one_system_a_damping(tiny_sizes):
    sizes = tiny_sizes("llama")
    kept = gone = WIDTH // 2
    each = kept**3 / 3 + 4 * kept**2 * HIDDEN
    once = 4 * kept * gone * HIDDEN + 2 * gone**2 * HIDDEN + 2 * WIDTH**2 * HIDDEN
    found = formulas.solve_operations(sizes, 0.5, len(DAMPINGS))
    assert found == pytest.approx(LAYERS * (len(DAMPINGS) * each + once))
