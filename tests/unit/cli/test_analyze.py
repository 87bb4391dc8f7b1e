"""``scarprune analyze``: from a profile to a folder of findings."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scarprune.profile import passes
from scarprune.profile.sums import load_profile

Run = Callable[..., Any]


def test_the_folder_holds_findings_and_the_core(scarprune: Run, profile: Path, tmp_path: Path) -> None:
    out = tmp_path / "found"
    result = scarprune("analyze", profile, "--out", out)
    assert result.code == 0, result.err
    findings = json.loads((out / "findings.json").read_text())
    assert findings["format"] == "scarprune.findings"
    read = load_profile(profile)
    for site in findings["sites"]:  # 48 channels, so the core is one: the largest sum of q^2
        q2 = read.total("sum_q2")[site["name"]]
        assert site["core"] == [int(np.argmax(q2))]
        np.testing.assert_allclose(site["core_share"], q2.max() / q2.sum())
    shares = [site["core_share"] for site in findings["sites"]]
    summary = findings["summary"]["core_share"]
    np.testing.assert_allclose(summary["median"], np.mean(shares))  # of two sites
    np.testing.assert_allclose([summary["min"], summary["max"]], [min(shares), max(shares)])
    assert findings["summary"]["jaccard_activation"].keys() >= {"median", "chance"}
    rows = list(csv.DictReader((out / "core.csv").open()))
    assert [int(row["channel"]) for row in rows] == [site["core"][0] for site in findings["sites"]]
    assert "holds" in result.out
    assert "--model MODEL" in " ".join(result.out.split())  # what was left out, and how to get it


def test_json_on_stdout_is_json_alone_and_without_nan(scarprune: Run, profile: Path) -> None:
    def refuse(word: str) -> float:
        raise AssertionError(word)

    result = scarprune("analyze", profile, "--json", "-", "--quiet")
    findings = json.loads(result.out, parse_constant=refuse)
    assert findings["missing"]["agreement"]
    assert findings["odd_tokens"] is None


def test_a_profile_agrees_with_itself(scarprune: Run, profile: Path) -> None:
    result = scarprune("analyze", profile, profile, "--json", "-", "--quiet")
    (pair,) = json.loads(result.out)["agreement"]["pairs"]
    assert pair["jaccard"]["median"] == 1
    assert pair["differ"] == []


def test_what_is_there_is_not_written_over(scarprune: Run, profile: Path, tmp_path: Path) -> None:
    (tmp_path / "core.csv").write_text("mine")
    result = scarprune("analyze", profile, "--out", tmp_path)
    assert result.code == 1
    assert "core.csv is already there" in result.err
    assert not (tmp_path / "findings.json").exists()
    assert scarprune("analyze", profile, "--out", tmp_path, "--overwrite").code == 0


def test_a_file_that_is_no_profile_is_named(scarprune: Run, tmp_path: Path) -> None:
    path = tmp_path / "p.safetensors"
    path.write_text("no")
    result = scarprune("analyze", path)
    assert result.code == 1
    assert "p.safetensors" in result.err


def test_an_interrupted_pass_goes_on_to_the_same_findings(
    scarprune: Run, profile: Path, tiny: Path, tmp_path: Path
) -> None:
    words = ("--model", tiny, "--flips", 20, "--random-cores", 2, "--batch", 4)
    assert scarprune("analyze", profile, "--out", tmp_path / "whole", *words, "--quiet").code == 0
    keep, out = passes.Run._keep, tmp_path / "found"

    def interrupted(self: Any, number: int, observer: Any) -> None:
        keep(self, number, observer)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scarprune.profile.state._SECONDS_BETWEEN", -1.0)
        patch.setattr(passes.Run, "_keep", interrupted)
        result = scarprune("analyze", profile, "--out", out, *words)
    assert result.code == 130
    assert "of memory on this CPU" in result.err
    assert "The same command with --resume goes on" in result.err
    assert (out / "findings.json.partial").exists()
    assert scarprune("analyze", profile, "--out", out, "--resume", *words, "--quiet").code == 0
    assert [path.name for path in sorted(out.iterdir())] == ["core.csv", "findings.json"]
    found, whole = (
        json.loads((folder / "findings.json").read_text()) for folder in (out, tmp_path / "whole")
    )
    assert found["halo"] == whole["halo"]
    assert found["odd_tokens"] == whole["odd_tokens"]
