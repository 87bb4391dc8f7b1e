"""The model card says what was cut, how to repeat it, and whose licence holds."""

import struct

import pytest
import yaml

from scarprune.cut.card import Quality, front_matter, render
from scarprune.cut.prune import prune_model
from support.plans import random_plan
from support.tiny_models import tiny_model

EVALUATION = {"perplexity": 12.5, "tokens": 4096}


@pytest.fixture(scope="module")
def cut():
    model = tiny_model("llama")
    plan = random_plan(model, 20, sparsity=0.58)
    return plan, prune_model(model, plan)


def source_with(folder, header):
    folder.mkdir(parents=True)
    (folder / "README.md").write_text(f"---\n{header}\n---\n# A model\n")
    return folder


def header_of(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_the_card_says_what_was_cut(cut):
    plan, report = cut
    card = render("small", "models/my llama", plan, report)
    for words in [
        "# small",
        "This is **my llama** with 58.3% of its feed-forward channels cut out by\nscarprune",
        "**The weights changed, and so did the quality.**",
        "Its perplexity was not measured",
        "| intermediate size | 48 | 20 |",
        f"| parameters | {report.parameters_before:,} | {report.parameters_after:,} |",
        "Channels ranked by `random`.",
        "Sparsity asked for 0.58, achieved 0.5833, allocation `uniform`.",
        "2 feed-forward networks, each keeping 20 channels",
        "Measured on `novels.txt`, 8 blocks of 64 tokens, seed 3.",
        f"`{plan.fingerprint}`",
        "scarprune cut 'models/my llama' scarprune-plan.json OUT",
    ]:
        assert words in card
    assert "zeros" not in card
    assert "\n\n\n" not in card


def test_the_card_gives_perplexities_where_they_were_measured(cut):
    quality = Quality(EVALUATION, {**EVALUATION, "perplexity": 25.0}, "novels.txt", 0.6931, 0.0123)
    card = render("small", "source", *cut, quality)
    assert "| perplexity | 12.500 | 25.000 |" in card
    assert "Perplexity on novels.txt, 4,096 predicted tokens; excess 0.6931 ± 0.0123 nats per token" in card
    assert "was not measured" not in card


def test_a_protected_core_and_widths_that_differ_are_said():
    model = tiny_model("llama")
    plan = random_plan(model, 20, 12)
    card = render("small", "source", plan, prune_model(model, plan, pad=True))
    assert "each keeping 12 to 20 channels" in card
    assert "- 8 stored channels are zeros" in card
    assert "scarprune-plan.json OUT --pad\n" in card


def test_licence_language_and_tags_come_from_the_sources_card(tmp_path):
    licence = "license: other\nlicense_name: mine\nlicense_link: LICENSE"
    rest = "language:\n- en\n- de\ntags:\n- chat\n- pruned\nextra: 1"
    source = source_with(tmp_path / "source", f"{licence}\n{rest}")
    assert front_matter(str(source), source) == {
        "license": "other",
        "license_name": "mine",
        "license_link": "LICENSE",
        "language": ["en", "de"],
        "tags": ["chat", "pruned", "scarprune"],
    }


def test_the_base_model_is_the_hub_id_or_what_the_sources_card_names(tmp_path):
    derived = source_with(tmp_path / "derived", "base_model: org/base")
    cached = source_with(tmp_path / "models--org--name-2" / "snapshots" / "0123", "base_model: org/base")
    assert front_matter(str(derived), derived)["base_model"] == "org/base"
    assert front_matter(str(cached), cached)["base_model"] == "org/name-2"
    assert front_matter("org/name", cached)["base_model"] == "org/name"
    assert "base_model" not in front_matter(str(tmp_path), tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        "license: [1, 2]",
        "license: !!python/object/apply:os.system ['true']",
        "license: {",
        "- license",
        "a: &a [x, x]\nb: &b [*a, *a]\nlicense: [*b, *b]",
        "day: 2020-99-99",
        "[" * 2000,
    ],
)
def test_a_hostile_header_carries_nothing(tmp_path, header):
    source = source_with(tmp_path / "source", header)
    assert front_matter(str(source), source) == {"tags": ["scarprune", "pruned"]}


def test_the_header_is_yaml_whatever_it_carries(tmp_path, cut):
    source = source_with(tmp_path / "source", 'license: "a: b\\n--- # c"')
    card = render("small", str(source), *cut, source_folder=source)
    assert header_of(card)["license"] == "a: b\n--- # c"


def gguf_string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf(path, pairs, version=3):
    data = b"GGUF" + struct.pack("<IQQ", version, 0, len(pairs))
    for key, value in pairs.items():
        data += gguf_string(key)
        if isinstance(value, str):
            data += struct.pack("<I", 8) + gguf_string(value)
        elif isinstance(value, int):
            data += struct.pack("<II", 4, value)
        else:
            data += struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(gguf_string, value))
    path.write_bytes(data)
    return path


def test_a_gguf_file_names_its_licence(tmp_path):
    pairs = {
        "general.license": "apache-2.0",
        "general.file_type": 3,
        "general.languages": ["en"],
        "general.base_model.0.repo_url": "https://huggingface.co/org/base",
        "tokenizer.ggml.tokens": ["a", "b"],
        "general.tags": ["too late"],
    }
    path = gguf(tmp_path / "model.gguf", pairs)
    expected = {
        "license": "apache-2.0",
        "language": ["en"],
        "base_model": "org/base",
        "tags": ["scarprune", "pruned"],
    }
    assert front_matter(str(path), path) == expected


@pytest.mark.parametrize("size", [0, 3, 10, 30, 50])
def test_a_truncated_gguf_file_carries_nothing(tmp_path, size):
    path = gguf(tmp_path / "model.gguf", {"general.license": "apache-2.0", "general.type": "model"})
    path.write_bytes(path.read_bytes()[:size])
    assert front_matter(str(path), path) == {"tags": ["scarprune", "pruned"]}
