"""``trajectory`` over folders and revisions: names, presets, and profiles kept for the next run."""

from types import SimpleNamespace

import huggingface_hub
import pytest

from scarprune.errors import ArgumentError, ArtifactError
from scarprune.pipeline.inputs import Measuring, Reading
from scarprune.pipeline.trajectory import Checkpoint, checkpoints_of, preset_checkpoints, trajectory
from support.hub import http


def folders(root, *names):
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "config.json").write_text("{}")


def test_steps_and_tokens_come_from_names():
    one = Checkpoint("allenai/OLMo-2-1124-7B", "stage1-step150-tokens1B")
    assert (one.step, one.tokens) == (150, 10**9)
    assert one.name == "OLMo-2-1124-7B@stage1-step150-tokens1B"
    assert (Checkpoint("run/step-1000").step, Checkpoint("run/final").step) == (1000, None)


def test_a_folder_of_checkpoints_is_taken_in_the_order_of_steps(tmp_path):
    folders(tmp_path, "step-1000", "step-200", "step-30")
    assert [one.step for one in checkpoints_of([str(tmp_path)])] == [30, 200, 1000]


def test_a_folder_of_profiles_is_taken_in_the_order_of_steps(tmp_path):
    for step in (1000, 200, 30):
        (tmp_path / f"step-{step}.safetensors").touch()
    (tmp_path / "trajectory.json").touch()
    found = checkpoints_of([str(tmp_path)])
    assert [one.step for one in found] == [30, 200, 1000]
    assert all(one.measured for one in found)


def test_an_empty_folder_and_equal_names_are_refused(tmp_path):
    folders(tmp_path, "a/step-1", "b/step-1")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="neither a model"):
        checkpoints_of([str(tmp_path / "empty")])
    with pytest.raises(ArgumentError, match="called step-1"):
        checkpoints_of([str(tmp_path / "a/step-1"), str(tmp_path / "b/step-1")])


def test_the_preset_takes_ten_revisions_from_first_to_last(monkeypatch):
    names = [f"stage1-step{100 * 2**i}-tokens{2**i}B" for i in range(13)]
    refs = [SimpleNamespace(name=name) for name in ["main", "stage2-step5-tokens5B", *names]]
    monkeypatch.setattr(huggingface_hub, "list_repo_refs", lambda repo: SimpleNamespace(branches=refs))

    found = preset_checkpoints("olmo-2-7b")

    assert len(found) == 10
    assert (found[0].tokens, found[-1].tokens) == (10**9, 4096 * 10**9)
    assert [one.tokens for one in found] == sorted(one.tokens for one in found)


@pytest.mark.parametrize("error", [ConnectionError, http.ConnectError])
def test_the_preset_without_a_network_says_so(error, monkeypatch):
    def refuse(repository):
        raise error("no route")

    monkeypatch.setattr(huggingface_hub, "list_repo_refs", refuse)
    with pytest.raises(ArtifactError, match="cannot be asked"):
        preset_checkpoints("olmo-2-7b")
    with pytest.raises(ArgumentError, match="no preset 'gpt'"):
        preset_checkpoints("gpt")


def test_kept_profiles_are_used_again_and_only_where_they_fit(tmp_path):
    same = Checkpoint("demo")
    few, short = Measuring(blocks=8, redundancy=False), Reading(length=32)
    found = trajectory([same], tmp_path, reading=short, measuring=few)
    kept = tmp_path / "profiles" / "demo.safetensors"
    written = kept.stat().st_mtime_ns

    again = trajectory([same, Checkpoint(str(kept))], tmp_path, reading=short, measuring=few, overwrite=True)

    assert kept.stat().st_mtime_ns == written
    assert again["checkpoints"][0] == found["checkpoints"][0]
    assert again["checkpoints"][0]["jaccard_with_final"]["min"] == 1.0
    with pytest.raises(ArtifactError, match="length 32, not 16"):
        trajectory([same], tmp_path, reading=Reading(length=16), measuring=few, overwrite=True)
    with pytest.raises(ArtifactError, match="already there"):
        trajectory([same], tmp_path, reading=short, measuring=few)
