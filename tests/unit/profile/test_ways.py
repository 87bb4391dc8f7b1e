"""Every way through a model gives the sums of the plain one, within the memory that was said."""

import functools
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from scarprune.errors import MemoryBudgetError, NumericsError, UnsupportedModelError
from scarprune.models.load import load_model
from scarprune.models.streamed import stream
from scarprune.profile import estimate, passes, ways
from scarprune.profile.run import profile_model
from scarprune.profile.state import Keeper
from scarprune.text.blocks import Blocks
from support.tiny_models import tiny_model

LENGTHS = (24, 24, 24, 20, 24, 24, 24)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def blocks():
    ids = np.random.default_rng(0).integers(3, 90, (len(LENGTHS), 24))
    return Blocks(ids=ids, lengths=np.array(LENGTHS), bytes=None, protocol="tokens", source="random")


def forced(monkeypatch, chosen):
    """Have every streamed or whole model go ``chosen(way)``."""
    for name in ("choose_way", "choose_streamed"):
        choose = getattr(ways, name)
        monkeypatch.setattr(ways, name, lambda *args, choose=choose: chosen(choose(*args)))


def assert_equal(one, other):
    assert one.tensors.keys() == other.tensors.keys()
    for key, array in one.tensors.items():
        assert np.array_equal(array, other.tensors[key]), key


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "gpt_neox", "phi3"])
@pytest.mark.parametrize("way", ["streamed", "checkpointed"])
def test_sums_are_those_of_the_whole_model(family, way, blocks, monkeypatch):
    tied = {"tie_word_embeddings": True} if family == "llama" else {}
    options = {"batch": 2, "labels": "both", "extras": ("entropy",)}
    plain = profile_model(tiny_model(family, **tied), blocks, **options)
    model = tiny_model(family, **tied)
    if way == "streamed":
        stream(model, CPU)
        forced(monkeypatch, lambda chosen: replace(chosen, together=4))
    else:
        forced(monkeypatch, lambda chosen: replace(chosen, kind="checkpointed"))
    assert_equal(plain, profile_model(model, blocks, **options))


def test_checkpointed_layers_compute_again(blocks, monkeypatch):
    calls, counts = [], []
    for kind in ("whole", "checkpointed"):
        model = tiny_model("llama")
        handle = model.model.layers[1].register_forward_pre_hook(lambda module, args: calls.append(1))
        forced(monkeypatch, lambda chosen, kind=kind: replace(chosen, kind=kind))
        calls.clear()
        profile_model(model, blocks, batch=7, redundancy=False)
        handle.remove()
        counts.append(len(calls))
        assert not any("_compiled_call_impl" in vars(layer) for layer in model.model.layers)
    assert counts[1] - counts[0] == 3  # batches of lengths 24, 20, 24 are computed once more


def test_two_layers_at_most_are_there(blocks):
    model = stream(tiny_model("llama", num_hidden_layers=5), CPU)
    held = model._scarprune_streamed
    present, most = set(), []
    put = type(held._places[0][0]).put

    def count(place, parameter):
        present.discard(place.absent) if parameter is place.absent else present.add(place.absent)
        most.append(len(present))
        put(place, parameter)

    type(held._places[0][0]).put = count
    try:
        profile_model(model, blocks, redundancy=False)
    finally:
        type(held._places[0][0]).put = put
    assert max(most) == len(held._places[0])  # the parameters of one layer
    assert all(parameter.is_meta for layer in model.model.layers for parameter in layer.parameters())


def test_each_layer_comes_twice_for_blocks_together(blocks, monkeypatch):
    model = stream(tiny_model("llama", num_hidden_layers=6), CPU)
    came = []
    fetch = model._scarprune_streamed.shelf.fetch
    model._scarprune_streamed.shelf.fetch = lambda layer, into: (came.append(layer), fetch(layer, into))
    starts = []
    walk = passes.Run.walk

    def walked(run, *rest):
        starts.append(len(came))
        return walk(run, *rest)

    monkeypatch.setattr(passes.Run, "walk", walked)
    profile_model(model, blocks, batch=2, redundancy=False)
    assert len(came) - starts[0] <= 2 * 6 + 6  # and once more for the norms of the weights


def test_a_resumed_run_gives_the_same_bits(blocks, tmp_path, monkeypatch):
    forced(monkeypatch, lambda chosen: replace(chosen, together=2))
    whole = profile_model(stream(tiny_model("llama"), CPU), blocks, batch=2)
    state = tmp_path / "state"
    kept = []

    def stop(keeper, found):
        kept.append(found.next_block)
        keep(keeper, found)
        if len(kept) == 2:
            raise KeyboardInterrupt

    keep = Keeper.keep
    monkeypatch.setattr(Keeper, "due", lambda keeper: True)
    monkeypatch.setattr(Keeper, "keep", stop)
    with pytest.raises(KeyboardInterrupt):
        profile_model(stream(tiny_model("llama"), CPU), blocks, batch=2, resume=state)
    monkeypatch.setattr(Keeper, "keep", keep)
    assert 0 < kept[1] < len(LENGTHS)
    assert_equal(whole, profile_model(stream(tiny_model("llama"), CPU), blocks, batch=2, resume=state))


def test_out_of_memory_in_the_middle_counts_nothing_twice(blocks, monkeypatch):
    whole = profile_model(tiny_model("llama"), blocks, batch=1)
    commit, times = passes.SumsPass.commit, []

    def fail_once(observer, scale=1.0):
        times.append(1)
        if len(times) == 3:
            raise torch.OutOfMemoryError
        commit(observer, scale)

    forced(monkeypatch, lambda chosen: replace(chosen, batch=2))
    monkeypatch.setattr(passes.SumsPass, "commit", fail_once)
    assert_equal(whole, profile_model(stream(tiny_model("llama"), CPU), blocks))


def test_an_overflow_in_float16_is_tried_again_at_a_smaller_scale(blocks, monkeypatch):
    plain = profile_model(tiny_model("llama"), blocks, batch=2, redundancy=False)
    finite, times = passes.SumsPass.pending_is_finite, []
    monkeypatch.setattr(
        passes.SumsPass,
        "pending_is_finite",
        lambda sums: times.append(1) or (len(times) != 3 and finite(sums)),
    )
    half = profile_model(stream(tiny_model("llama").half(), CPU), blocks, batch=2, redundancy=False)
    assert len(times) > 3
    for site in plain.sites:
        one, other = (p.get(site.name, "sum_q2").sum() for p in (plain, half))
        assert other == pytest.approx(one, rel=0.05)


@pytest.fixture
def _steady(monkeypatch):
    """What the process holds does not grow from one profile to the next."""
    monkeypatch.setattr(estimate, "used_bytes", lambda device: 300 << 20)


@pytest.mark.parametrize("logits", [0.0, 50.0, 4000.0])
@pytest.mark.parametrize("transient", [0.0, 300.0])
@pytest.mark.parametrize("square", [0.0, 2.0])
def test_the_largest_batch_is_the_last_whose_peak_fits(logits, transient, square):
    memory = ways.Memory(
        resident=1000, totals=500, linear=100.0, square=square, transient=transient, logits=logits, chunk=40
    )
    for limit in (1400, 3000, 20_000, 100_000, 181_500, 400_000):
        fitting = [batch for batch in range(500) if memory.peak(batch, 16) <= limit]
        assert memory.largest_batch(16, limit) == max(fitting, default=0)


class TestBound:
    @pytest.mark.usefixtures("_steady")
    def test_what_is_too_little_names_what_would_do(self, blocks):
        model = tiny_model("llama")
        with pytest.raises(
            MemoryBudgetError, match="1 MiB of memory is too little: one block needs"
        ) as caught:
            profile_model(model, blocks, memory="1MiB")
        least = re.search(r"needs (\d+ MiB|[\d.]+ GiB)", str(caught.value))[1]
        profile_model(model, blocks, memory=least, redundancy=False)

    @pytest.mark.usefixtures("_steady")
    def test_of_a_streamed_model_too(self, blocks):
        model = stream(tiny_model("llama"), CPU)
        with pytest.raises(MemoryBudgetError, match="1 MiB of memory is too little") as caught:
            profile_model(model, blocks, memory=1 << 20)
        least = re.search(r"needs (\d+ MiB|[\d.]+ GiB)", str(caught.value))[1]
        profile_model(model, blocks, memory=least, redundancy=False)

    @pytest.mark.parametrize(("bound", "much"), [("1GiB", "1.0 GiB of memory"), ("auto", "What is free")])
    def test_what_does_not_even_let_a_look_at_the_model_is_one_sentence(
        self, blocks, monkeypatch, bound, much
    ):
        def none_left(model, sites, observer, looks):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

        monkeypatch.setattr(estimate, "summing", none_left)
        with pytest.raises(MemoryBudgetError, match=rf"{much} is too little on cpu: not even a few tokens"):
            profile_model(tiny_model("llama"), blocks, memory=bound)

    def test_checkpoints_come_before_smaller_batches_only_where_they_are_faster(self):
        memory = ways.Memory(0, 0, linear=1000.0, square=0.0, transient=0.0, logits=0.0, chunk=1)
        sites = [None] * 10

        def choose(bound, device):
            lengths = np.full(64, 512)
            return ways.choose_way(memory, sites, 10, lengths, "auto", bound, torch.device(device))

        block = 512 * 1000 / ways._SHARE_OF_BOUND
        assert (choose(int(33 * block), "cuda").kind, choose(int(33 * block), "cuda").batch) == ("whole", 32)
        assert (choose(int(4.5 * block), "cuda").kind, choose(int(4.5 * block), "cuda").batch) == ("whole", 4)
        small = choose(
            int(1.5 * block), "cuda"
        )  # 1 x (1 + 256/512) whole, 1.34 x (1 + 256/3584) checkpointed
        assert (small.kind, small.batch) == ("checkpointed", 7)  # 100 + 1000/10 bytes a token: a fifth
        assert choose(int(1.5 * block), "cpu").kind == "whole"

    def test_a_batch_that_was_asked_for_is_kept(self):
        memory = ways.Memory(0, 0, linear=1000.0, square=0.0, transient=0.0, logits=0.0, chunk=1)
        lengths = np.full(64, 512)

        def choose(bound):
            return ways.choose_way(memory, [None] * 10, 10, lengths, 4, bound, torch.device("cuda"))

        assert choose(1 << 30).kind == "whole"
        assert (choose(1 << 20).kind, choose(1 << 20).batch) == ("checkpointed", 4)
        with pytest.raises(MemoryBudgetError, match="a batch of 4 blocks needs"):
            choose(1 << 10)


class TestStreamed:
    def test_extras_of_the_whole_model_are_refused(self, blocks):
        with pytest.raises(UnsupportedModelError, match="'gradient' needs the whole model in memory"):
            profile_model(stream(tiny_model("llama"), CPU), blocks, extras=("gradient",))

    def test_gradients_elsewhere_are_refused(self, blocks):
        model = stream(tiny_model("llama"), CPU)
        with pytest.raises(UnsupportedModelError, match="streamed"):
            model(input_ids=torch.from_numpy(blocks.ids[:1]))

    def test_a_weight_that_is_no_number_is_named(self, blocks):
        model = tiny_model("llama")
        model.model.layers[1].mlp.up_proj.weight.data[3, 4] = float("nan")
        with pytest.raises(NumericsError, match=r"Layer 1 has weights .* mlp.up_proj.weight"):
            profile_model(stream(model, CPU), blocks)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_from_files(dtype, blocks, tmp_path):
    tiny_model("gemma2").save_pretrained(tmp_path, max_shard_size="20KB")
    whole = profile_model(load_model(tmp_path, dtype)[0], blocks, batch=2)
    model, _ = load_model(tmp_path, dtype, streamed=True)
    assert all(parameter.is_meta for layer in model.model.layers for parameter in layer.parameters())
    streamed = profile_model(model, blocks, batch=2)
    assert_equal(whole, streamed)
    assert streamed.fingerprint == whole.fingerprint


@pytest.mark.parametrize(("family", "way"), [("llama", "streamed"), ("gpt2", "checkpointed")])
def test_layers_may_be_compiled_as_well(family, way, blocks, monkeypatch):
    """Captured and differentiated as for the compiler, and then run operation by operation."""
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    torch._dynamo.reset()
    options = {"batch": 2, "labels": "both"}
    plain = profile_model(tiny_model(family), blocks, compiled=False, **options)
    model = tiny_model(family)
    if way == "streamed":
        stream(model, CPU)
    else:
        forced(monkeypatch, lambda chosen: replace(chosen, kind="checkpointed"))
    compiled = profile_model(model, blocks, compiled=True, **options)
    torch._dynamo.reset()
    assert compiled.header["provenance"]["compiled"] is True  # it did not give up
    for key, array in plain.tensors.items():
        scale = np.abs(array).max()
        np.testing.assert_allclose(compiled.tensors[key], array, rtol=1e-5, atol=1e-5 * scale, err_msg=key)
