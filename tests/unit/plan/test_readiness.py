"""Widths of public models whose fate is written down, and multiples counted by hand."""

import pytest

from scarprune.plan.readiness import NEEDS, readiness


def multiples_met(*widths):
    return [need.multiple for need in readiness(widths).met]


@pytest.mark.parametrize(
    ("width", "met"),
    [
        (10944, [32, 64]),  # DeepSeek-V2-Lite: refused by Marlin's 128, vLLM issue 9913
        (14464, [32, 64, 128]),  # "not divisible by 256, required for q3_K", llama.cpp issue 6614
        (14336, [32, 64, 128, 256]),  # Llama-3.1-8B
        (1232, []),  # 16 x 77
    ],
)
def test_needs_that_a_width_meets(width, met):
    assert multiples_met(width) == met


def test_sites_of_different_widths_all_have_to_meet_them():
    assert multiples_met(96, 256) == [32]
    assert multiples_met(256, 512) == [32, 64, 128, 256]


def test_gpus_that_can_share_groups():
    # Qwen2-72B has 29568 = 231 x 128 channels, so no two GPUs; its AWQ files are padded to 29696 for eight
    # (vLLM issue 21695 and the history of Qwen2-VL-72B-Instruct-AWQ).
    assert readiness([29568]).splits(128) == ()
    assert readiness([29696]).splits(128) == (2, 4, 8)
    assert readiness([29568]).splits() == (2, 4, 8, 16)
    assert readiness([11]).splits() == ()


def test_the_next_width_is_the_least_that_meets_a_need():
    found = {need["multiple"]: need for need in readiness([1232]).as_json()["needs"]}
    assert [found[multiple]["next_width"] for multiple in (32, 64, 128, 256)] == [1248, 1280, 1280, 1280]
    assert not any(need["met"] for need in found.values())
    assert all(need.source.startswith("https://") for need in NEEDS)
