"""The programme on a tiny model: artifacts, resuming to the same numbers, and what is refused."""

import json

import numpy as np
import pytest

from scarprune.errors import ArgumentError, ArtifactError
from scarprune.pipeline.inputs import Loading
from scarprune.pipeline.reproduce import run as run_module
from scarprune.pipeline.reproduce.programme import STEPS, chosen_steps, programme
from scarprune.pipeline.reproduce.run import reproduce
from scarprune.report.figures import pruning
from scarprune.report.sources import read_folder
from support.tiny_models import tiny_model
from support.tokenizers import byte_level

SMALL = {
    "length": 24,
    "blocks": 10,
    "evaluation_blocks": 3,
    "probe_blocks": 2,
    "channels": 6,
    "pairs": 2,
    "flips": 5,
    "random_cores": 2,
    "paper_texts": 8,
    "paper_blocks": 3,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model("llama", vocab_size=400).save_pretrained(folder)
    byte_level().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    rng = np.random.default_rng(0)
    lines = [" ".join(f"sea{w}" for w in rng.integers(0, 9_999, n)) for n in rng.integers(1, 30, 60)]
    path = tmp_path_factory.mktemp("texts") / "sea.txt"
    path.write_text("\n".join(lines))
    return str(path)


def asked(model, source, **other):
    options = {"text": source, "evaluation": source, "sparsities": (0.5,), **SMALL, **other}
    return programme(str(model), **options)


@pytest.fixture(scope="module")
def whole(tiny, source, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "whole"
    with pytest.MonkeyPatch.context() as patch:  # drawing the page takes longer than all else together
        patch.setattr(run_module, "write_page", lambda folder, page, **options: page.write_text("page"))
        return reproduce(asked(tiny, source), out), out


def test_every_step_leaves_its_artifact_and_nothing_else(whole):
    document, out = whole
    names = {"findings.json", "core.csv", "validation.json", "pruning.json", "paper.json"}
    names |= {"paper-pruning.json", "reproduction.json", "state.json", "report.html"}
    names |= {f"{stem}.safetensors" for stem in ("profile", "paper-profile", "paper-scores")}
    assert {path.name for path in out.iterdir()} == names
    written = json.loads((out / "reproduction.json").read_text())
    assert written["format"] == "scarprune.reproduction"
    assert {row["protocol"] for row in document["pruning"]} == {"ours", "paper"}
    paper = {row["score"] for row in document["pruning"] if row["protocol"] == "paper"}
    assert {"paper_wanda", "paper_sparsegpt", "paper_flap", "paper_llm_pruner", "paper_act_l2"} <= paper
    assert set(document["differences"]) == {"epsilon", "texts"}
    assert all(row["paper"] is None for row in document["table"])  # not a model of the paper


def test_the_figure_of_the_report_draws_these_rows(whole):
    document, out = whole
    kept = read_folder(out)["reproduction"]
    drawn = pruning.rows(kept)
    assert len(drawn) == len(document["pruning"])
    assert {row["protocol"] for row in drawn} == {"ours", "paper"}
    assert all(row["excess_nats"] is not None and row["perplexity"] > 1 for row in drawn)


def test_an_interrupted_run_goes_on_to_the_same_numbers(whole, tiny, source, tmp_path, monkeypatch):
    out, made, steps = tmp_path / "again", [], ("profile", "pruning")
    judge = run_module.prune_and_judge

    def interrupted(*arguments):
        if len(made) == 4:
            raise KeyboardInterrupt
        made.append(arguments[2].name)
        return judge(*arguments)

    monkeypatch.setattr(run_module, "prune_and_judge", interrupted)
    with pytest.raises(KeyboardInterrupt):
        reproduce(asked(tiny, source), out, steps=steps)
    assert not out.exists()
    monkeypatch.setattr(run_module, "prune_and_judge", judge)
    profiled = []
    monkeypatch.setattr(run_module, "measure", lambda *a, **k: profiled.append(a))
    found = reproduce(asked(tiny, source), out, steps=steps, resume=True)
    assert not profiled
    ours = [row for row in whole[0]["pruning"] if row["protocol"] == "ours"]
    assert found["pruning"] == ours
    assert made == list(dict.fromkeys(row["score"] for row in ours))[:4]


def test_a_finished_folder_takes_more_steps_without_loading_for_those_it_has(tiny, source, tmp_path):
    out, wanted = tmp_path / "out", asked(tiny, source)
    first = reproduce(wanted, out, steps=("profile", "findings"))
    assert (first["missing"]["pruning"], first["missing"]["report"]) == (
        "the step was not run",
        "left out as asked",
    )
    assert first["table"][0]["our_protocol"] is None
    more = reproduce(wanted, out, steps=("pruning",), resume=True)
    assert {row["protocol"] for row in more["pruning"]} == {"ours"}
    assert (out / "findings.json").exists()
    with pytest.raises(ArtifactError, match="already there"):
        reproduce(wanted, out, steps=("profile",))


def test_a_folder_of_other_options_or_weights_is_refused(tiny, source, tmp_path):
    out = tmp_path / "out"
    reproduce(asked(tiny, source), out, steps=("profile",))
    before = sorted(path.name for path in out.iterdir())
    with pytest.raises(ArtifactError, match="begun with blocks 10, not 9"):
        reproduce(asked(tiny, source, blocks=9), out, steps=("pruning",), resume=True)
    assert sorted(path.name for path in out.iterdir()) == before
    other = tiny_model("llama", seed=1, vocab_size=400)
    twin = tmp_path / "twin"
    other.save_pretrained(twin)
    byte_level().save_pretrained(twin)
    with pytest.raises(ArtifactError, match="begun with preset"):
        reproduce(asked(twin, source), out, steps=("pruning",), resume=True)
    (twin / "model.safetensors").replace(tiny / "model.safetensors.other")
    kept = (tiny / "model.safetensors").read_bytes()
    try:  # the same name, other weights
        (tiny / "model.safetensors.other").replace(tiny / "model.safetensors")
        with pytest.raises(ArtifactError, match="other weights"):
            reproduce(asked(tiny, source), out, steps=("pruning",), resume=True)
    finally:
        (tiny / "model.safetensors").write_bytes(kept)


def test_without_the_drawing_library_all_else_is_written(tiny, source, tmp_path, monkeypatch):
    from scarprune.errors import ScarpruneError

    def absent(*arguments, **options):
        raise ScarpruneError("A report needs Altair.")

    monkeypatch.setattr(run_module, "write_page", absent)
    found = reproduce(asked(tiny, source), tmp_path / "out", steps=("profile", "report"))
    written = json.loads((tmp_path / "out" / "reproduction.json").read_text())
    assert written["missing"]["report"] == found["missing"]["report"] == "A report needs Altair."


def test_options_that_cannot_be():
    with pytest.raises(ArgumentError, match="no step 'prune'"):
        chosen_steps("profile,prune")
    assert chosen_steps("report, profile") == ("profile", "report")
    assert chosen_steps(None) == STEPS
    with pytest.raises(ArgumentError, match="between 0 and 1"):
        programme("demo", sparsities=(0.5, 1.0))
    with pytest.raises(ArgumentError, match="--eval"):
        programme("demo", text="book.txt")
    with pytest.raises(ArgumentError, match="blocks must be 1 or more, not 0"):
        programme("demo", blocks=0)


def test_a_step_needs_what_it_builds_on(tiny, source, tmp_path):
    with pytest.raises(ArgumentError, match="paper-pruning needs the step paper"):
        reproduce(asked(tiny, source), tmp_path / "out", steps=("paper-pruning",))


def test_presets_of_the_paper_read_its_text():
    made = programme("mistral-7b", model="/weights")
    assert (made.text, made.evaluation) == (
        "hf:wikitext:wikitext-2-raw-v1:train",
        "hf:wikitext:wikitext-2-raw-v1:test",
    )
    assert (made.model, made.reading.protocol, made.paper.texts, made.paper.block) == (
        "/weights",
        "contiguous",
        64,
        2048,
    )
    assert made.sparsities == (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
    assert Loading().dtype == made.dtype
