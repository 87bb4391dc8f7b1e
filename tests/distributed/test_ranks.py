"""Several processes measure what one does: data parallel, tensor parallel, and both."""

import json

import numpy as np
import pytest
import torch

from scarprune.cli.main import run
from scarprune.profile.run import profile_model
from scarprune.profile.sums import load_profile
from scarprune.runtime.ranks import Ranks
from support import processes
from support.launch import same, torchrun
from support.tiny_models import tiny_model

DIVIDED = [family for family in processes.FAMILIES if family != "gpt2"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("ranks")
    for family in processes.FAMILIES:
        tiny_model(family, noise=0.03).save_pretrained(path / family)
    return path


@pytest.fixture(scope="module")
def alone(folder):
    return {family: processes.measured(folder, family) for family in DIVIDED}


@pytest.fixture(scope="module")
def two(folder):
    done = torchrun(2, "-m", "support.processes", str(folder), "2", "cpu")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize("rank", [0, 1])
def test_two_copies_measure_what_one_does(two, alone, rank):
    found = load_profile(two / f"{rank}-of-2" / "data.safetensors")
    same(found, alone["llama"])
    assert found.header["provenance"]["processes"] == 2


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("family", DIVIDED)
def test_two_parts_measure_what_the_whole_does(two, alone, family, rank):
    found = load_profile(two / f"{rank}-of-2" / f"{family}.safetensors")
    same(found, alone[family])
    assert found.header["provenance"]["parts"] == 2


@pytest.mark.parametrize("rank", [0, 1])
def test_two_parts_measure_compiled_what_the_whole_does(two, rank):
    found = load_profile(two / f"{rank}-of-2" / "compiled.safetensors")
    same(found, processes.of_one_length(two, compiled=False))
    assert found.header["provenance"]["compiled"] is True  # it was not found wrong


def test_parts_that_are_broken_off_go_on_in_step(two, alone):
    for rank in (0, 1):
        same(load_profile(two / f"{rank}-of-2" / "went_on.safetensors"), alone["llama"])
    assert not (two / "state-2").exists()


@pytest.mark.parametrize("rank", [0, 1])
def test_passes_leave_no_tensor_of_a_graph(two, rank):
    """Else parts would hold more with every batch."""
    assert (two / f"{rank}-of-2" / "left.txt").read_text() == "0"


def test_a_tensor_of_a_graph_is_found():
    before = processes.of_graphs()
    kept = torch.ones(3, requires_grad=True).exp()  # its graph holds the leaf
    assert kept.requires_grad
    assert processes.of_graphs() == before + 2


def test_an_architecture_without_a_plan_is_refused_by_name(two):
    said = (two / "1-of-2" / "gpt2.txt").read_text()
    assert said.startswith("transformers has no plan for tensor parallelism of 'gpt2', so --tp 2 cannot be.")


def test_slices_of_unequal_width_are_lined_up(two):
    for rank in (0, 1):
        assert np.load(two / f"{rank}-of-2" / "line.npy").tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_two_copies_judge_what_one_does(two):
    expected = processes.judged(two)
    for rank in (0, 1):
        assert np.allclose(np.load(two / f"{rank}-of-2" / "nats.npy"), expected, rtol=1e-6)


@pytest.mark.slow
def test_two_copies_of_two_parts_measure_what_one_does(folder, alone):
    done = torchrun(4, "-m", "support.processes", str(folder), "2", "cpu")
    assert done.returncode == 0, done.stderr
    for rank in range(4):
        for family in DIVIDED:
            same(load_profile(folder / f"{rank}-of-4" / f"{family}.safetensors"), alone[family])


# -- one of them dies --------------------------------------------------------------------------------


def test_a_killed_process_ends_the_run_with_a_sentence_and_it_goes_on(tmp_path):
    ids = tmp_path / "ids.npy"
    np.save(ids, np.random.default_rng(0).integers(3, 96, size=(12, 16)))
    tiny_model("llama").save_pretrained(tmp_path / "model")
    out, answer = tmp_path / "p.safetensors", tmp_path / "answer.json"
    command = ["profile", str(tmp_path / "model"), "--text", str(ids), "--blocks", "12", "--batch", "2"]
    command += ["--device", "cpu", "--out", str(out)]

    died = torchrun(2, "-m", "support.processes", "dying", *command)
    assert died.returncode == 1
    said = [line for line in died.stderr.splitlines() if line.startswith("Error:")]
    partial = tmp_path / "p.safetensors.partial"
    assert said == [
        "Error: Another process of this run has ended, so this one ends too. What was measured so far is in "
        f"{partial}. The same command with --resume goes on from there."
    ]
    assert sorted(file.name for file in partial.iterdir()) == ["1-of-2.safetensors", "2-of-2.safetensors"]
    assert not out.exists()

    assert run([*command, "--resume", "--quiet"]) == 1  # one process alone does not go on from it
    went_on = torchrun(2, "-m", "scarprune", *command, "--resume", "--json", str(answer))
    assert went_on.returncode == 0, went_on.stderr
    assert went_on.stdout.count("written") == 1
    assert json.loads(answer.read_text())["counts"]["blocks"] == 12
    assert not partial.exists()
    assert run([*command, "--overwrite", "--quiet", "--out", str(tmp_path / "alone.safetensors")]) == 0
    same(load_profile(out), load_profile(tmp_path / "alone.safetensors"))


# -- how the work is divided -------------------------------------------------------------------------


def test_shares_are_runs_of_about_equal_weight_and_cover_everything():
    lengths = np.array([1, 1, 1, 1, 5, 7])
    assert [Ranks(rank, 2).share(lengths) for rank in range(2)] == [(0, 5), (5, 6)]
    shares = [Ranks(rank, 4).share(lengths) for rank in range(4)]
    assert [start for start, _ in shares[1:]] == [stop for _, stop in shares[:-1]]
    assert (shares[0][0], shares[-1][1]) == (0, 6)
    assert all(start < stop for start, stop in shares)


def test_parts_of_one_copy_share_its_blocks():
    lengths = np.full(8, 5)
    assert [Ranks(rank, 4, parts=2).share(lengths) for rank in range(4)] == [(0, 4), (0, 4), (4, 8), (4, 8)]


def test_fewer_blocks_than_copies_are_refused():
    model, blocks = tiny_model("llama"), processes.text().take(np.arange(1))
    with pytest.raises(ValueError, match=r"fewer blocks \(1\) than processes to divide them between \(2\)"):
        profile_model(model, blocks, ranks=Ranks(0, 2))


@pytest.mark.parametrize("extra", ["gradient", "hessian"])
def test_extras_that_are_no_sums_over_blocks_are_refused_by_name(extra):
    with pytest.raises(ValueError, match=f"The extra {extra} is measured by one process alone, not by 2"):
        profile_model(tiny_model("llama"), processes.text(), extras=(extra,), ranks=Ranks(0, 2))


def test_a_command_of_one_process_is_refused_in_several(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(["plan", "p.safetensors"]) == 1
    assert (
        capsys.readouterr().err
        == "Error: plan is the work of one process, not of several. Run it without torchrun.\n"
    )


def test_less_than_one_part_is_refused(capsys):
    assert run(["profile", "demo", "--tp", "0", "--out", "never.safetensors"]) == 1
    assert "has 1 part or more, not 0. Use --tp 1 or more." in capsys.readouterr().err


def test_parts_without_a_launcher_are_refused(capsys):
    assert run(["profile", "demo", "--tp", "2", "--out", "never.safetensors"]) == 1
    said = capsys.readouterr().err
    assert "Copies in 2 parts need a multiple of 2 processes; here there are 1." in said
    assert "torchrun --nproc-per-node 2 -m scarprune" in said
