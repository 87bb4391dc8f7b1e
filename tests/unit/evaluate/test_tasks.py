"""Tasks through lm_eval against brute force: one forward pass per choice, in float64 or of the same model."""

import copy
import itertools
import json

import numpy as np
import pytest
import torch

from scarprune.errors import ArgumentError, ScarpruneError, TextError
from scarprune.evaluate import tasks
from scarprune.evaluate.masks import masked
from scarprune.evaluate.task_files import refuse_code
from scarprune.evaluate.tasks import PAPER, Asking, Metric, difference, results_of, run_tasks
from scarprune.models.load import load_model

datasets = pytest.importorskip("datasets")
pytest.importorskip("lm_eval")

OPENINGS = [
    "The keeper climbed the",
    "She said that she would",
    "They sat down by the",
    "There was no wind, and the",
]
CHOICES = [" stairs", " sea", " be late"]
SHOT = {"opening": "Nobody had seen the", "choices": CHOICES, "label": 1}
METRICS = "metric_list:\n  - metric: acc\n  - metric: acc_norm\n"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture(scope="module")
def demo():
    return load_model("demo", device="cpu")


def log_likelihoods(model, tokenizer, context):
    """Of each choice after ``context``: the sum over its tokens, one forward pass each."""
    found = []
    for choice in CHOICES:
        start = len(tokenizer(context)["input_ids"])
        ids = tokenizer(context + choice)["input_ids"]
        with torch.no_grad():
            # As lm_eval does without the last: another shape may round otherwise.
            logits = model(torch.tensor([ids[:-1]])).logits[0]
        logs = logits.to(torch.float64).log_softmax(-1)
        found.append(sum(float(logs[at - 1, ids[at]]) for at in range(start, len(ids))))
    return np.array(found)


def write_task(folder, items, name="mine", more=""):
    """A task file of ``items``, its data beside it."""
    folder.mkdir(exist_ok=True)
    for split, rows in (("test", items), ("dev", [SHOT])):
        (folder / f"{name}-{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path = folder / f"{name}.yaml"
    path.write_text(
        f"task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n"
        f"    test: {folder}/{name}-test.jsonl\n    dev: {folder}/{name}-dev.jsonl\n"
        "test_split: test\nfewshot_split: dev\nfewshot_config:\n  sampler: first_n\n"
        "output_type: multiple_choice\ndoc_to_text: '{{opening}}'\ndoc_to_choice: '{{choices}}'\n"
        f"doc_to_target: '{{{{label}}}}'\ntarget_delimiter: ''\n{METRICS}{more}"
    )
    return path


def items_with(labels):
    return [
        {"opening": opening, "choices": CHOICES, "label": int(label)}
        for opening, label in zip(OPENINGS, labels, strict=True)
    ]


def best(model, tokenizer, before="", norm=False):
    """The choice that brute force finds likeliest, of each opening; ``norm``: per character."""
    lengths = np.array([len(choice) for choice in CHOICES]) if norm else 1
    double = copy.deepcopy(model).double()
    return np.array(
        [int(np.argmax(log_likelihoods(double, tokenizer, before + o) / lengths)) for o in OPENINGS]
    )


def test_accuracy_is_what_the_task_was_built_to_give(demo, tmp_path):
    likeliest, per_character = best(*demo), best(*demo, norm=True)
    assert likeliest.tolist() != per_character.tolist()
    labels = (likeliest + np.array([0, 0, 1, 0])) % 3  # one of four made wrong
    found = run_tasks(*demo, Asking((str(write_task(tmp_path / "t", items_with(labels))),)))["mine"]
    assert (found.n, found.num_fewshot, found.part_of) == (4, 0, None)
    assert found.metrics["acc"].value == 0.75
    assert found.metrics["acc_norm"].value == np.mean(per_character == labels)
    # Four items with deviation (n - 1) root(3 / 4 * 1 / 4 * 4 / 3) = 1/2, over root 4.
    assert found.metrics["acc"].standard_error == pytest.approx(0.25)
    assert found.metrics["acc"].items.tolist() == [1, 1, 0, 1]


def test_limit_takes_the_first_items(demo, tmp_path):
    path = write_task(tmp_path / "t", items_with((best(*demo) + np.array([0, 1, 1, 1])) % 3))
    found = run_tasks(*demo, Asking((str(path),), limit=2))["mine"]
    assert (found.n, found.metrics["acc"].value) == (2, 0.5)


def test_examples_stand_before_the_question(demo, tmp_path):
    shown = f"{SHOT['opening']}{CHOICES[1]}\n\n"
    plain, with_example = best(*demo), best(*demo, before=shown)
    assert plain.tolist() != with_example.tolist()
    path = write_task(tmp_path / "t", items_with(with_example))
    found = run_tasks(*demo, Asking((str(path),), num_fewshot=1))["mine"]
    assert (found.num_fewshot, found.metrics["acc"].value) == (1, 1.0)


def test_under_a_mask_it_is_the_model_without_those_channels(demo, plan_for, tmp_path):
    model, tokenizer = demo
    plan = plan_for(model)
    zeroed = copy.deepcopy(model)
    for site in plan.sites:
        gone = np.setdiff1d(np.arange(site.width), site.keep)
        zeroed.get_submodule(site.name).weight.data[:, gone] = 0
    whole, cut = best(model, tokenizer), best(zeroed, tokenizer)
    assert whole.tolist() != cut.tolist()
    labels = (whole + np.array([1, 0, 0, 0])) % 3  # of the whole model one is wrong
    asking = Asking((str(write_task(tmp_path / "t", items_with(labels))),))
    dense = run_tasks(model, tokenizer, asking)
    with masked(model, plan):
        under = run_tasks(model, tokenizer, asking)
    before, hits = (whole == labels).astype(float), (cut == labels).astype(float)
    paired, alone = (np.std(numbers, ddof=1) / 2 for numbers in (hits - before, hits))
    assert paired != alone
    assert under["mine"].metrics["acc"].value == hits.mean()
    numbers = under["mine"].as_json(dense["mine"])
    assert numbers["accuracy"] == hits.mean()
    assert numbers["metrics"]["acc"]["difference"] == hits.mean() - 0.75
    assert numbers["metrics"]["acc"]["difference_standard_error"] == pytest.approx(paired)


def test_log_probabilities_are_float32_in_a_bfloat16_model(demo, tmp_path):
    from scarprune.evaluate.harness import Harness

    model, tokenizer = copy.deepcopy(demo[0]).bfloat16(), demo[1]
    path = write_task(tmp_path / "t", items_with([0, 0, 0, 0]))
    samples = Harness(model, tokenizer, [], False, 1, None).run([str(path)], None, None)["samples"]["mine"]
    for opening, sample in zip(OPENINGS, samples, strict=True):
        found = [response[0][0] for response in sample["resps"]]
        assert found == pytest.approx(log_likelihoods(model, tokenizer, opening), rel=1e-5)


def test_a_folder_is_all_its_tasks_and_groups_pool_their_items(demo, tmp_path):
    folder, likeliest = tmp_path / "t", best(*demo)
    write_task(folder, items_with(likeliest), "right")
    write_task(folder, items_with((likeliest + 1) % 3)[:2], "wrong")
    (folder / "both.yaml").write_text(
        "group: both\ntask: [right, wrong]\n"
        "aggregate_metric_list:\n  - metric: acc\n    weight_by_size: true\n"
    )
    found = run_tasks(*demo, Asking((str(folder),)))
    assert {name: (task.n, task.part_of) for name, task in found.items()} == {
        "right": (4, "both"),
        "wrong": (2, "both"),
        "both": (6, None),
    }
    assert found["both"].metrics["acc"].value == pytest.approx(4 / 6)
    assert sorted(found["both"].metrics["acc"].items) == [0, 0, 1, 1, 1, 1]


def test_batches_hold_as_many_of_the_longest_as_fit(demo, monkeypatch):
    from scarprune.evaluate import harness

    monkeypatch.setattr(harness, "tokens_at_once", lambda *_: 100)
    lm = harness.Harness(*demo, [], False, "auto", None)._lm
    assert lm._detect_batch_size([(None, [1] * 20, [2] * 10), (None, [1], [2])]) == 3
    assert lm._detect_batch_size([(None, [1] * 500, [2] * 10)]) == 1
    assert lm._detect_batch_size() == 1  # the context is 1024


def test_what_no_mean_makes_has_no_items_and_what_is_not_finite_no_value():
    samples = [{"filter": "none", "f1": 1.0, "acc": float(right)} for right in (1, 0)]
    numbers = {"alias": "x", "sample_len": 2, "f1,none": 0.3, "f1_stderr,none": "N/A", "acc,none": 0.5}
    raw = {
        "results": {
            "x": {**numbers, "acc_stderr,none": 0.1, "bpb,none": float("nan")},
            "empty": {"alias": "e"},
        },
        "samples": {"x": samples},
        "versions": {"x": "Yaml"},
        "n-shot": {"x": 0},
    }
    found = results_of(raw)
    assert list(found) == ["x"]
    metrics = found["x"].metrics
    assert (metrics["f1"].value, metrics["f1"].standard_error, metrics["f1"].items) == (0.3, None, None)
    assert metrics["acc"].items.tolist() == [1, 0]
    assert metrics["bpb"].value is None
    assert found["x"].version is None
    json.dumps(found["x"].as_json(found["x"]), allow_nan=False)


def test_a_difference_without_items_has_no_error():
    assert difference(Metric(0.5, 0.1), Metric(0.25, 0.1)) == (-0.25, None)
    assert difference(Metric(None, None), Metric(0.25, 0.1)) == (None, None)


def test_paper_is_the_papers_list_at_its_numbers_of_examples():
    zero = ["hellaswag", "piqa", "boolq", "winogrande", "arc_easy", "arc_challenge", "openbookqa"]
    assert Asking(("paper", "lambada_openai")).by_fewshot() == {
        0: zero,
        5: ["mmlu"],
        None: ["lambada_openai"],
    }
    assert Asking(("paper",), num_fewshot=2).by_fewshot() == {2: [*zero, "mmlu"]}


def test_lm_eval_has_the_papers_tasks():
    from pathlib import Path

    import lm_eval.tasks

    root = Path(lm_eval.tasks.__file__).parent
    places = ("hellaswag", "piqa", "super_glue/boolq", "winogrande", "arc", "openbookqa", "mmlu/default")
    manager = lm_eval.tasks.TaskManager(include_path=[root / p for p in places], include_defaults=False)
    assert set(PAPER) <= set(manager.all_tasks)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tasks": ()}, "empty name"),
        ({"tasks": ("piqa", "")}, "empty name"),
        ({"tasks": ("piqa",), "limit": 0}, "limit must be a positive number of items, not 0"),
        ({"tasks": ("piqa",), "num_fewshot": -1}, "num_fewshot must not be below zero, and is -1"),
    ],
)
def test_nonsense_is_refused(options, words):
    with pytest.raises(ArgumentError, match=words):
        Asking(**options)


def test_a_misspelt_task_gets_a_proposal():
    with pytest.raises(TextError, match=r"knows no task 'hellswag'\. Did you mean hellaswag\?"):
        tasks._refuse_unknown(["hellswag"], ["piqa", "hellaswag"])


def test_the_missing_package_is_named(demo, monkeypatch):
    monkeypatch.setattr(tasks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ScarpruneError, match=r"package lm_eval, which is not installed.*scarprune\[eval\]"):
        run_tasks(*demo, Asking(("piqa",)))


def test_a_model_without_tokenizer_cannot_read_tasks(demo):
    with pytest.raises(TextError, match="this model has no tokenizer"):
        run_tasks(demo[0], None, Asking(("piqa",)))


def test_data_that_is_not_there_is_one_sentence(demo, tmp_path):
    path = write_task(tmp_path / "t", items_with([0, 0, 0, 0]))
    (tmp_path / "t" / "mine-test.jsonl").unlink()
    with pytest.raises(TextError, match=r"lm_eval could not run .*mine\.yaml: FileNotFoundError"):
        run_tasks(*demo, Asking((str(path),)))


def test_python_beside_a_task_file_is_run_only_where_trusted(demo, tmp_path):
    folder = tmp_path / "t"
    write_task(folder, items_with(best(*demo)), more="process_docs: !function own.shorten\n")
    (folder / "own.py").write_text("def shorten(rows):\n    return rows.select([0])\n")
    including = folder / "more.yaml"
    including.write_text("include: mine.yaml\ntask: more\n")
    for path in (folder, including):
        with pytest.raises(TextError, match=r"calls Python code of its own.*--trust-remote-code"):
            run_tasks(*demo, Asking((str(path),)))
    trusted = run_tasks(*demo, Asking((str(including),)), trust_remote_code=True)
    assert (trusted["more"].n, trusted["more"].metrics["acc"].value) == (1, 1.0)


@pytest.mark.parametrize(
    ("content", "words"),
    [("a: [", "not a readable task file"), ("- a\n", "holds no keys"), (None, "There is no task file")],
)
def test_a_damaged_task_file_is_named(tmp_path, content, words):
    path = tmp_path / "bad.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(TextError, match=rf"{words}.*bad\.yaml|bad\.yaml.*{words}"):
        refuse_code(path)


def test_a_folder_without_task_files_is_named(tmp_path):
    with pytest.raises(TextError, match=r"holds no task files \(\.yaml\)"):
        refuse_code(tmp_path)


def test_includes_that_go_round_end(tmp_path):
    for one, other in itertools.permutations(("a", "b")):
        (tmp_path / f"{one}.yaml").write_text(f"include: {other}.yaml\ntask: {one}\n")
    refuse_code(tmp_path / "a.yaml")
