"""The built-in model and texts, read the way any user of transformers would."""

import lzma
import math
from itertools import pairwise

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scarprune import demo
from scarprune.errors import ArgumentError


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(demo.model_folder())


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(demo.model_folder(), dtype=torch.float32).eval()


def read(part):
    return lzma.decompress(demo.text_path(part).read_bytes()).decode()


def test_folder_is_small_and_complete():
    sizes = {path.name: path.stat().st_size for path in demo.model_folder().iterdir()}
    wanted = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert wanted | {"tokenizer_config.json", "README.md"} == set(sizes)
    assert sum(sizes.values()) <= 16_000_000


def test_stored_as_a_bfloat16_llama_with_a_core_of_ten():
    model = AutoModelForCausalLM.from_pretrained(demo.model_folder())
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model.config.intermediate_size // 100 >= 10
    assert model.config.max_position_embeddings >= 1024
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_text_begins_with_bos_unless_told_otherwise(tokenizer):
    ids = tokenizer("A dark night").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer("A dark night", add_special_tokens=False).input_ids == ids[1:]
    assert tokenizer.eos_token_id not in ids


def test_any_text_survives_the_tokenizer(tokenizer):
    text = 'He said: "Café—no!"\n\n\n  €5 \x00 名 🙂 '
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == text
    assert max(ids) < len(tokenizer) == 4096


@torch.no_grad()
def test_model_has_learned_to_write_novels(model, tokenizer):
    # 1.5 bits a byte is what gzip-like coders miss by far and the model passes with room on any novel.
    pieces = read("evaluation").split("\n\n\n")[::6]
    nats = num_bytes = 0.0
    for piece in pieces:
        ids = tokenizer(piece[:1500], return_tensors="pt").input_ids[:, :512]
        nats += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        num_bytes += len(tokenizer.decode(ids[0, 1:]).encode())
    assert nats / math.log(2) / num_bytes < 1.5


@pytest.mark.parametrize(("part", "num_books"), [("calibration", 6), ("evaluation", 13)])
def test_texts_are_half_a_megabyte_of_several_books(part, num_books):
    text = read(part)
    books = text.split("\n\n\n")
    assert 450_000 < len(text.encode()) < 550_000
    assert len(books) == num_books
    sizes = [len(book) for book in books]
    assert max(sizes) < 1.2 * min(sizes)
    assert all(book == book.strip("\n") for book in books)


def test_texts_share_no_passage():
    def runs(text):
        words = text.split()
        return {" ".join(words[start : start + 13]) for start in range(len(words) - 12)}

    assert not runs(read("calibration")) & runs(read("evaluation"))


def test_other_part_is_refused_by_name():
    with pytest.raises(ArgumentError, match="'calibration' and 'evaluation', not 'test'"):
        demo.text_path("test")


def test_importing_demo_does_not_import_torch():
    import subprocess
    import sys

    code = "import sys, scarprune.demo; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_card_has_a_header_and_names_every_book_once():
    lines = (demo.model_folder() / "README.md").read_text().splitlines()
    assert lines[0] == "---"
    assert "license: apache-2.0" in lines[: lines.index("---", 1)]
    authors = [line[2:].split(":")[0] for line in lines[lines.index("## Books") :] if line.startswith("- ")]
    surnames = [author.split()[-1] for author in authors]
    assert all(a <= b for a, b in pairwise(surnames))
    books = sum(line.count("* (") for line in lines[lines.index("## Books") :])
    assert books == 209
