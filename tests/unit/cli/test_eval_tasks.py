"""``scarprune eval --tasks`` from its arguments to its words and JSON."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

datasets = pytest.importorskip("datasets")
pytest.importorskip("lm_eval")

Run = Callable[..., Any]


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A task file of 20 questions with two answers each."""
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [{"q": f"sea{n}", "answers": [f" boat{n}", " lamp"], "right": n % 2} for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = tmp_path / "boats.yaml"
    path.write_text(
        f"task: boats\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {tmp_path}/rows.jsonl}}}}\n"
        "test_split: test\noutput_type: multiple_choice\ndoc_to_text: '{{q}}'\n"
        "doc_to_choice: '{{answers}}'\ndoc_to_target: '{{right}}'\nmetric_list: [{metric: acc}]\n"
    )
    return path


@pytest.fixture
def plan(scarprune: Run, profile: Path, tmp_path: Path) -> Path:
    path = tmp_path / "plan.json"
    assert scarprune("plan", profile, "--sparsity", 0.5, "--multiple-of", 1, "--out", path).code == 0
    return path


def test_tasks_need_no_text(scarprune: Run, tiny: Path, task: Path) -> None:
    result = scarprune("eval", tiny, "--tasks", task, "--limit", 8, "--json", "-")
    assert (result.code, result.err) == (0, "")
    found = json.loads(result.out)
    assert "perplexity" not in found
    assert (found["format"], found["limit"]) == ("scarprune.eval", 8)
    assert found["tasks"]["boats"]["n"] == 8
    assert found["provenance"]["versions"]["lm_eval"][0].isdigit()


def test_text_and_tasks_are_one_document(scarprune: Run, tiny: Path, task: Path, text: Path) -> None:
    result = scarprune(
        "eval", tiny, "--tasks", task, "--text", text, "--blocks", 4, "--length", 32, "--json", "-"
    )
    found = json.loads(result.out)
    assert found["tokens"] == 4 * 31
    assert 0 <= found["tasks"]["boats"]["accuracy"] <= 1


def test_a_plan_and_its_cut_model_agree(
    scarprune: Run, tiny: Path, task: Path, plan: Path, text: Path, tmp_path: Path
) -> None:
    assert scarprune("cut", tiny, plan, tmp_path / "small").code == 0
    on = ("--tasks", task, "--text", text, "--blocks", 4, "--length", 32)
    result = scarprune("eval", tiny, "--plan", plan, *on, "--quiet", "--json", tmp_path / "masked.json")
    assert (result.code, result.err) == (0, "")
    header = next(line for line in result.out.splitlines() if line.startswith("task"))
    assert header.split() == [
        "task",
        "metric",
        "dense",
        "under",
        "the",
        "plan",
        "difference",
        "items",
        "few-shot",
    ]
    masked = json.loads((tmp_path / "masked.json").read_text())
    cut, dense = (
        json.loads(scarprune("eval", model, *on, "--json", "-").out) for model in (tmp_path / "small", tiny)
    )
    assert masked["perplexity"] == pytest.approx(cut["perplexity"], rel=1e-6)
    assert masked["perplexity"] != pytest.approx(dense["perplexity"], rel=1e-3)
    assert masked["dense"]["perplexity"] == dense["perplexity"]
    assert masked["dense"]["tasks"] == dense["tasks"]
    under, before, after = (found["tasks"]["boats"] for found in (masked, dense, cut))
    assert under["accuracy"] == after["accuracy"]
    difference = under["metrics"]["acc"]["difference"]
    assert difference == pytest.approx(after["accuracy"] - before["accuracy"])


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        ([], 2, "Missing option '--text' or '--tasks'"),
        (["--text", "demo", "--limit", 3], 2, "--num-fewshot and --limit are about --tasks"),
        (["--tasks", "piqa,"], 1, "An empty name is no task"),
        (["--tasks", "no/such.yaml"], 1, "There is no task file or folder no/such.yaml"),
    ],
)
def test_what_is_wrong_with_the_arguments_is_said(
    scarprune: Run, tiny: Path, options: list[object], code: int, words: str
) -> None:
    result = scarprune("eval", tiny, *options)
    assert result.code == code
    assert words in result.err


def test_parts_of_a_group_are_left_to_the_json() -> None:
    from scarprune.cli import show
    from scarprune.cli.answer import console
    from scarprune.evaluate.tasks import Metric, TaskResult

    def result(part_of: str | None) -> TaskResult:
        metrics = {"acc": Metric(0.25, 0.125), "bpb": Metric(None, None)}
        return TaskResult(n=1400, num_fewshot=None, version=None, part_of=part_of, metrics=metrics)

    out = console()
    with out.capture() as caught:
        out.print(show.tasks({"law": result("all"), "all": result(None)}, None))
    lines = [line.split() for line in caught.get().splitlines()[2:]]
    assert lines == [
        ["all", "acc", "0.2500", "±", "0.1250", "1,400", "mixed"],
        ["all", "bpb", "not", "finite", "1,400", "mixed"],
    ]
