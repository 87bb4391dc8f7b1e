"""`scarprune demo` from end to end, on fewer blocks than people get."""

import contextlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from scarprune.cli.main import run
from scarprune.pipeline import demo
from scarprune.runtime.progress import set_quiet

_setting = demo.setting


def _short(which: str | None) -> demo.Setting:
    return replace(_setting(which), length=64, calibration=8, evaluation=4)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The folder of a demo that was run twice, and what the second one printed."""
    out = tmp_path_factory.mktemp("demo") / "told"
    out.mkdir()  # an empty folder is nobody's
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "setting", _short)
        assert run(["demo", "--out", str(out), "--quiet", "--json", "-"]) == 0
        (out / "left-over").touch()
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert run(["demo", "--out", str(out), "--quiet"]) == 0
    yield out, printed.getvalue()
    set_quiet(False)


def _result(told: tuple[Path, str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((told[0] / "demo.json").read_text())
    return found


def test_an_earlier_demo_is_replaced_whole(told: tuple[Path, str]) -> None:
    assert sorted(path.name for path in told[0].iterdir()) == [
        "demo.json",
        "model",
        "plan.json",
        "profile.safetensors",
    ]
    assert [path.name for path in told[0].parent.iterdir()] == ["told"]


def test_what_is_printed_was_measured(told: tuple[Path, str]) -> None:
    _, printed = told
    result = _result(told)
    for site in result["sites"]:
        assert f"layer  {site['layer']}  {100 * site['core_share']:>5.1f}%" in printed
    assert re.search(rf"all channels +{result['dense']['perplexity']:.2f}\b", printed)
    for ranking in result["rankings"]:
        assert f"{ranking['excess_nats']:.3f} ± {ranking['excess_standard_error']:.3f}" in printed
    for words in (result["sentence"]["dense"], result["sentence"]["pruned"]):
        assert " ".join(words.split())[:20] in " ".join(printed.split())


def test_what_others_measured_is_called_quoted(told: tuple[Path, str]) -> None:
    printed = " ".join(told[1].split())
    assert "Quoted, not measured here: 20% in SmolLM2-135M" in printed
    assert "58.7% in Llama-3.1-8B (arXiv 2604.23475)" in printed
    assert "weakly concentrated" in printed


def test_the_rankings_are_the_ones_promised(told: tuple[Path, str]) -> None:
    assert [(ranking["score"], ranking["protect"]) for ranking in _result(told)["rankings"]] == [
        ("scar_prot", None),
        ("loss_proxy", None),
        ("activation_power", None),
        ("wanda", None),
        ("random", "core"),
        ("random", None),
    ]


def test_the_smaller_model_loads_and_is_smaller(told: tuple[Path, str]) -> None:
    model = AutoModelForCausalLM.from_pretrained(told[0] / "model")
    cut = _result(told)["cut"]
    assert model.config.intermediate_size == 512
    assert model.num_parameters() == cut["parameters_after"]
    # Six layers lose 512 channels in three matrices of hidden size 256.
    assert cut["parameters_before"] - cut["parameters_after"] == 6 * 512 * 3 * 256
    assert cut["bytes_after"] == 2 * cut["parameters_after"]
