"""Sentences on numbers that can be worked out in the head."""

import pytest

from scarprune.evaluate.explain import Timed, limit, ratio, reasons, verdict
from scarprune.evaluate.speed import Load, Speed
from scarprune.models.cost import Cost, Parts
from scarprune.runtime.clock import Ceiling
from scarprune.stats.summary import spread


def cost(ffn, width=256):
    """Of a model whose attention and head are 200 each, in operations and in bytes, without scores."""
    parts = Parts(ffn=ffn, attention=200, vocabulary=200)
    return Cost(
        parameters=1,
        weight_bytes=parts,
        widths=(width,),
        layers=4,
        matrices=parts,
        first=Parts(),
        score_size=0,
        heads=0,
        kept_size=0,
        cache_bytes=0,
        read_bytes=parts,
    )


def timed(ffn=600, width=256, prefill=(10.0, 10.0), decode=(10.0, 10.0), ceiling=(1e4, 1e4), **device):
    device = {"device": "cuda", "itemsize": 2, **device}
    speed = Speed(list(prefill), list(decode))
    return Timed(cost(ffn, width), speed, Load(length=1, new=1, rounds=2), Ceiling(*ceiling), **device)


def test_rates_are_compared_round_by_round():
    dense, small = Speed([10.0, 20.0, 40.0], []), Speed([20.0, 10.0, 60.0], [])
    found = ratio(dense, small, "prefill")
    assert (found.min, found.median, found.max) == (0.5, 1.5, 2.0)


def test_the_limit_is_what_is_left_of_all_work():
    # 600 of 1000 are feed-forward; half of them left makes 700.
    dense, small = timed(600), timed(300)
    assert limit(dense, small, "prefill") == pytest.approx(1000 / 700)
    assert limit(dense, small, "decode") == pytest.approx(1000 / 700)


def test_the_share_of_the_ceiling_is_work_over_time():
    found = timed(600, prefill=(4.0, 6.0), decode=(2.0, 2.0))  # 1000 operations and bytes for each token
    assert found.share_of_ceiling("prefill") == pytest.approx(1000 / 1e4 / (1 / 5))
    assert found.share_of_ceiling("decode") == pytest.approx(1000 / 1e4 / (1 / 2))


def test_shares_and_limits_are_said():
    (first,) = reasons(timed(600), timed(300))
    assert first == (
        "The feed-forward networks are 60% of prefill's operations and 60% of decode's bytes; 50% of them "
        "are left, and attention and vocabulary stay, so the rates can become 1.43 (prefill) and 1.43 "
        "(decode) times the whole model's at best."
    )


def test_a_model_that_is_not_smaller_is_called_so():
    assert "are not smaller in the second model" in reasons(timed(600), timed(600))[0]


def test_a_width_off_the_tiles_is_said_where_there_are_tensor_cores():
    found = reasons(timed(600), timed(300, width=200))
    assert found[1].startswith("200 channels are no multiple of 64")
    assert "256 may be faster (--multiple-of 64)" in found[1]
    assert len(reasons(timed(600), timed(300, width=192))) == 1
    for device in ({"device": "cpu"}, {"itemsize": 4}):
        assert len(reasons(timed(600, **device), timed(300, width=200, **device))) == 1


def test_work_that_does_not_fill_the_device_is_said():
    # 1000 operations at 10 a second, where the device does 1e5: 10%.
    (_, prefill) = reasons(timed(ceiling=(1e5, 1e4)), timed(300))
    assert prefill.startswith("Prefill of the whole model reaches 10% of this device's rate")
    (_, decode) = reasons(timed(ceiling=(1e4, 1e5)), timed(300))
    assert decode.startswith("Decode of the whole model takes 100 ms a step, 10.0 times what reading")
    assert "4 layers one by one" in decode
    assert "CUDA graphs" in decode
    (_, on_cpu) = reasons(timed(ceiling=(1e4, 1e5), device="cpu"), timed(300, device="cpu"))
    assert "CUDA graphs" not in on_cpu


def test_where_rounds_differ_nothing_finer_is_claimed():
    found = reasons(timed(decode=(10.0, 20.0), ceiling=(1e5, 1e5)), timed(300))
    assert found[1:] == [
        "Rounds of the same model differ by up to 2.0 times: something else runs on this device, and small "
        "differences mean nothing."
    ]


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ((1.1, 1.2, 1.3), "decode: faster in every round, 1.20 times the rate (1.10 to 1.30 over rounds)"),
        ((0.7, 0.8, 0.9), "decode: slower in every round, 0.80 times the rate (0.70 to 0.90 over rounds)"),
        ((0.9, 1.2, 1.3), "decode: no difference beyond the spread"),
    ],
)
def test_a_verdict_needs_every_round(ratios, words):
    assert verdict(spread(ratios), "decode").startswith(words)
