"""Placements and stages: what fits where, what grows with what, and times that can be worked out by hand."""

import dataclasses
import math

import pytest
import torch

from scarprune.errors import ArgumentError
from scarprune.scaling import formulas
from scarprune.scaling.machine import H100, measured, stated
from scarprune.scaling.placement import Text, place
from scarprune.scaling.stages import Job, Work, forecast, seconds

TEXT = Text(128, 512)
LEVEL = dataclasses.replace(
    H100, operations_per_second=200.0, efficiency=0.5, float32_per_second=10.0, float64_per_second=5.0,
    bytes_per_second=20.0, link=4.0, network=2.0, host=8.0,
)  # fmt: skip


def by_name(stages):
    return {stage.name: stage for stage in stages}


def test_time_is_a_sum_but_for_the_host_which_works_at_the_same_time():
    work = Work(operations=300, float32=20, float64=5, moved_bytes=40, linked_bytes=8, network_bytes=2)
    # 300 / (0.5 x 200) + 20 / 10 + 5 / 5 + 40 / 20 = 8 of computing, then 8 / 4 and 2 / 2 of sending.
    assert seconds(work, LEVEL) == 8 + 2 + 1
    assert seconds(dataclasses.replace(work, host_bytes=72), LEVEL) == 9 + 2 + 1
    assert seconds(dataclasses.replace(work, host_bytes=8), LEVEL) == 8 + 2 + 1


@pytest.mark.parametrize("missing", ["link", "network", "host", "disk"])
def test_there_is_no_time_over_a_link_that_is_not_known(missing):
    of = {"link": "linked_bytes", "network": "network_bytes", "host": "host_bytes", "disk": "disk_bytes"}
    machine = dataclasses.replace(LEVEL, disk=1.0)
    work = Work(**{of[missing]: 1.0})
    assert seconds(work, machine) is not None
    assert seconds(work, dataclasses.replace(machine, **{missing: None})) is None


def test_an_8b_model_lies_on_one_gpu_and_a_70b_model_on_four_or_streams(published):
    small, large = published("llama-3.1-8b"), published("llama-3.1-70b")
    assert (place(small, TEXT, H100).way, place(small, TEXT, H100, 8).copies) == ("resident", 8)
    assert place(large, TEXT, H100).way == "streamed"
    # 141 GB and 9 GB of sums over 2 GPUs are more than 85% of 80 GB, over 4 they are 38 GB.
    found = place(large, TEXT, H100, 8)
    assert (found.way, found.shards, found.copies, found.fits) == ("resident", 4, 2, True)


def test_memory_is_what_its_parts_add_up_to(published):
    sizes = published("llama-3.1-8b")
    found = place(sizes, TEXT, H100)
    chunk = (512 << 20) // (4 * 128256)
    fixed = 2 * 8_030_261_248 + 12 * 32 * 14336 * (53 + 143) + 16 * 128256 * chunk
    each = formulas.saved_bytes(sizes, kernels=True) + 4 * 2 * 14336
    assert found.memory_bytes == pytest.approx(fixed + found.batch * 512 * each)
    assert found.memory_bytes <= 0.85 * H100.memory_bytes < found.memory_bytes + 512 * each


def test_what_fits_nowhere_has_no_time_and_says_why(published):
    found = by_name(forecast(published("llama-3.1-405b"), Job(TEXT), H100))
    assert found["profile, pass 1"].seconds is None
    assert "not even one block fits" in str(found["profile, pass 1"].reason)
    assert "--disk" in str(found["cut"].reason)


def test_passes_grow_linearly_with_blocks_and_shrink_with_gpus(published):
    sizes = published("llama-3.1-8b")
    one, two = (by_name(forecast(sizes, Job(Text(blocks, 512)), H100)) for blocks in (128, 256))
    for name in ("profile, pass 1", "profile, pass 2", "perplexity"):
        assert two[name].seconds == pytest.approx(2 * one[name].seconds)
    spread = by_name(forecast(sizes, Job(TEXT, gpus=8), H100))["profile, pass 1"]
    assert spread.work.operations == one["profile, pass 1"].work.operations / 8
    sent = formulas.all_reduce_bytes(formulas.sums_sent_bytes(sizes), 8)
    assert (spread.work.linked_bytes, spread.work.network_bytes) == (sent, 0)
    many = by_name(forecast(sizes, Job(TEXT, gpus=1024), H100))["profile, pass 1"]
    assert many.work.operations == one["profile, pass 1"].work.operations / 128  # one block each, no less
    assert many.work.network_bytes > 0


def test_a_pass_grows_linearly_with_layers(tiny_sizes):
    def operations(layers):
        sizes = tiny_sizes("llama", num_hidden_layers=layers)
        return forecast(sizes, Job(Text(4, 16)), H100)[0].work.operations

    assert operations(5) - operations(3) == operations(9) - operations(7) > 0


def test_a_cut_takes_feed_forward_away_from_what_trains(published):
    sizes = published("llama-3.1-8b")
    whole, half = (by_name(forecast(sizes, Job(TEXT, sparsity=s), H100)) for s in (0.0, 0.5))
    gone = 0.5 * 3 * 4096 * 14336 * 32
    kept = 8_030_261_248 - gone
    assert whole["cut"].work.disk_bytes == 4 * 8_030_261_248
    assert half["cut"].work.disk_bytes == 2 * (8_030_261_248 + kept)
    # 3 x 2 operations a weight and token that is gone: 16 blocks a step; 600 steps of 4,096 tokens a layer.
    heal = whole["heal, a step"].work.operations - half["heal, a step"].work.operations
    assert heal == pytest.approx(6 * gone * 16 * 512)
    refit = (whole["refit"].work.operations - half["refit"].work.operations) - 2 * gone * 65536
    assert refit == pytest.approx(6 * gone * 600 * 4096)
    assert half["refit"].seconds > half["ls"].seconds > half["perplexity"].seconds


def test_checkpointing_computes_the_layers_once_more(published):
    sizes = published("llama-3.1-8b")
    tight = dataclasses.replace(H100, memory_bytes=24e9)
    assert place(sizes, TEXT, tight).way == "checkpointed"
    plain, again = (forecast(sizes, Job(TEXT), machine)[0].work.operations for machine in (H100, tight))
    layers = sizes.cost.prefill_operations(512)
    assert again - plain == pytest.approx(128 * (layers.ffn + layers.attention))


def test_streaming_reads_all_layers_twice_a_batch(published):
    sizes = published("llama-3.1-70b")
    found = place(sizes, TEXT, H100)
    work = forecast(sizes, Job(TEXT), H100)[0].work
    assert work.host_bytes == math.ceil(128 / found.batch) * formulas.streamed_bytes(sizes)
    # Two layers, the embedding and the head, the last norm; norms of the layers are all counted.
    layer = 3 * 8192 * 28672 + 2 * 8192 * 8192 + 2 * 8192 * 1024
    weights = 2 * (2 * layer + 2 * 128256 * 8192 + 81 * 8192 + 80 * 8192)
    chunk = 16 * 128256 * ((512 << 20) // (4 * 128256))
    sums = 12 * 80 * 28672 * (53 + 286)
    each = formulas.checkpointed_bytes(sizes, kernels=True) + formulas.transient_bytes(sizes)
    assert found.memory_bytes == pytest.approx(weights + sums + chunk + found.batch * 512 * each)


def test_stated_rates_keep_the_ratio_of_wider_products():
    found = stated(H100, tflops=2 * 753, bandwidth=100, disk=3)
    assert (found.operations_per_second, found.float32_per_second) == (2 * 753e12, 2 * 67e12)
    assert (found.bytes_per_second, found.disk) == (100e9, 3e9)
    assert stated(H100, tflops=None, bandwidth=None) == H100


def test_a_cpu_is_measured_and_linked_to_nothing():
    found = measured(torch.device("cpu"), torch.float32)
    assert 0 < found.bytes_per_second < 1e13
    assert found.float32_per_second == found.operations_per_second
    assert (found.link, found.network, found.host, found.device) == (None, None, None, "cpu")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Text(0, 512), "blocks must be at least 1, and is 0"),
        (lambda: Text(1, 1), "length must be at least 2, and is 1"),
        (lambda: Job(TEXT, sparsity=1.0), "sparsity must lie from 0 to below 1, and is 1.0"),
        (lambda: stated(H100, tflops=0.0, bandwidth=None), "--tflops must be positive, and is 0.0"),
        (lambda: stated(H100, tflops=None, bandwidth=math.nan), "--bandwidth must be positive, and is nan"),
    ],
)
def test_nonsense_is_refused_by_name(make, words):
    with pytest.raises(ArgumentError, match=words):
        make()


def test_no_gpu_is_too_few(tiny_sizes):
    with pytest.raises(ArgumentError, match="gpus must be at least 1, and is 0"):
        place(tiny_sizes("llama"), Text(4, 16), H100, 0)
