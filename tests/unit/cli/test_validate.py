"""``scarprune validate``: from a model and its profile to a file of probes and a verdict."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
SMALL = ("--blocks", 4, "--length", 32, "--channels", 12, "--pairs", 6)


def test_the_criterion_is_said_before_and_the_verdict_follows(
    scarprune: Run, tiny: Path, text: Path, profile: Path, tmp_path: Path
) -> None:
    def refuse(word: str) -> float:
        raise AssertionError(word)

    out = tmp_path / "found"
    result = scarprune("validate", tiny, "--profile", profile, "--text", text, "--out", out, *SMALL)
    assert result.code == 0, result.err
    assert "Fixed beforehand: The loss proxy is refuted" in result.err
    found = json.loads((out / "validation.json").read_text(), parse_constant=refuse)
    assert found["format"] == "scarprune.validation"
    columns = found["singles"]["channels"]
    assert len(columns["channel"]) == len(columns["d_nats"]) == len(columns["loss_proxy"])
    for dl, d, first in zip(columns["dl_nats"], columns["d_nats"], columns["first_order"], strict=True):
        assert d == pytest.approx(dl - first, abs=1e-9)
    assert {row["set"] for row in found["sets"]} >= {"core", "random", "halo"}
    assert all(row["predicted_nats"] is None for row in found["sets"])  # no sampled labels
    assert found["missing"]["recall"]
    assert found["verdict"]["reason"] in " ".join(result.out.split())
    assert not (out / "validation.json.partial").exists()


def test_what_was_measured_is_not_measured_again(
    scarprune: Run,
    tiny: Path,
    text: Path,
    profile: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from scarprune.findings.probes import validate as module

    given = (
        "validate",
        tiny,
        "--profile",
        profile,
        "--text",
        text,
        "--out",
        tmp_path / "x",
        *SMALL,
        "--quiet",
    )

    def stop(self: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module._Probe, "dose", stop)
        interrupted = scarprune(*given)
    assert interrupted.code == 130
    assert "--resume" in interrupted.err
    with monkeypatch.context() as patch:
        patch.setattr(module._Probe, "singles", stop)  # would end it again
        resumed = scarprune(*given, "--resume")
    assert resumed.code == 0, resumed.err
    fresh = scarprune(*given, "--overwrite", "--json", "-")
    first = json.loads((tmp_path / "x" / "validation.json").read_text())
    assert json.loads(fresh.out)["singles"] == first["singles"]


def test_a_profile_of_other_weights_is_refused(scarprune: Run, profile: Path) -> None:
    result = scarprune("validate", "demo", "--profile", profile, *SMALL)
    assert result.code == 1
    assert "other weights" in result.err
