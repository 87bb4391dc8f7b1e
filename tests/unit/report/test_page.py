"""The page: whole, small, safe, and refused where it cannot be made."""

import json
import sys
from pathlib import Path

import pytest

from scarprune.artifacts import write_json
from scarprune.errors import ArtifactError, ScarpruneError
from scarprune.report.export import write_figures
from scarprune.report.page import script_json, write_page
from support.findings import NASTY, findings, write_folder


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = write_folder(tmp_path_factory.mktemp("findings"))
    write_page(folder, folder / "report.html")
    return (folder / "report.html").read_text(encoding="utf-8")


def test_strings_of_the_artifacts_cannot_become_script(page: str) -> None:
    assert NASTY not in page
    assert "window.broken=1</script>" not in page
    assert page.count("<script") == page.count("</script>") == 3
    assert json.loads(script_json({"a": NASTY + "\u2028&"})) == {"a": NASTY + "\u2028&"}


def test_nothing_is_loaded_and_the_policy_says_so(page: str) -> None:
    assert "default-src 'none'" in page
    assert "unsafe-eval" not in page
    assert "<link" not in page
    assert 'src="http' not in page


def test_words_verdict_and_reasons_are_there(page: str) -> None:
    assert "The core &lt;holds&gt; 31.0% &amp; more." in page
    assert "Not refuted on this model" in page
    assert "needs two profiles of the model or more" in page
    assert "Too few probes." in page


def test_a_folder_with_one_artifact_names_the_others(tmp_path: Path) -> None:
    write_folder(tmp_path, "trajectory")
    facts = write_page(tmp_path, tmp_path / "report.html")
    assert facts["figures"] == ["trajectory", "trajectory_overlap", "births"]
    assert "scarprune validate" in facts["absent"]["dose"]


def test_an_existing_page_and_an_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nothing to report on"):
        write_page(tmp_path, tmp_path / "report.html")
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(ArtifactError, match="already there"):
        write_page(tmp_path, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text() == "mine"


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(ScarpruneError, match=r'pip install "scarprune\[report\]"'):
        write_page(write_folder(tmp_path), tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_findings_of_an_8b_model_fit_in_6_mb(tmp_path: Path) -> None:
    write_json(tmp_path / "findings.json", "findings", findings(sites=32, width=14336, core=143, points=64))
    assert write_page(tmp_path, tmp_path / "report.html")["bytes"] < 6e6


def test_every_figure_is_exported(tmp_path: Path) -> None:
    made = write_figures(write_folder(tmp_path, "validation"), "svg")
    assert set(made["written"]) == {
        "singles",
        "recall",
        "dose",
        "sets",
        "hit_rate",
        "forced_hit_rate",
        "random_core",
    }
    assert "predicted, nats per token" in (tmp_path / "figures" / "sets.svg").read_text()
