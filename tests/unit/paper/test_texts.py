"""Reading as the paper's code does, against the tokenizer called line by line."""

import json

import pytest

from scarprune.errors import TextError
from scarprune.paper.texts import PaperReading, lines_of, paper_blocks, paper_texts
from support.tiny_models import tiny_model
from support.tokenizers import byte_level, marked_words

TEXT = " = The sea = \n\nThe boats came back late.\n   \nNobody had seen them go, or so it was said.\nx\n"


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "sea.txt"
    path.write_text(TEXT)
    return str(path)


def test_lines_by_themselves_headings_included_and_truncated(source):
    tokenizer = byte_level()
    lines = [
        " = The sea = ",
        "The boats came back late.",
        "Nobody had seen them go, or so it was said.",
    ]
    blocks = paper_texts(source, tokenizer, 3, 9)
    expected = [tokenizer(line)["input_ids"][:9] for line in lines]
    assert [blocks.ids[i, :n].tolist() for i, n in enumerate(blocks.lengths)] == expected
    assert (blocks.protocol, blocks.lengths.max()) == ("paper", 9)


def test_rows_of_a_data_set_keep_their_line_ends(tmp_path):
    rows = ["", " = The sea = \n", "", " The boats came back late . \n"]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": row}) for row in rows))
    assert lines_of(str(path), byte_level()) == [rows[1], rows[3]]


def test_special_tokens_as_the_tokenizer_adds_them(source):
    tokenizer = marked_words()
    blocks = paper_texts(source, tokenizer, 1, 512)
    assert blocks.ids[0].tolist() == tokenizer(" = The sea = ")["input_ids"]
    assert blocks.ids[0, 0] == tokenizer.bos_token_id


def test_evaluation_keeps_the_last_short_block(source):
    tokenizer = byte_level()
    joined = "\n\n".join(line for line in TEXT.split("\n") if line.strip())
    ids = tokenizer(joined)["input_ids"]
    length = 10 if len(ids) % 10 > 1 else 9
    blocks = paper_blocks(source, tokenizer, length)
    assert blocks.lengths.tolist() == [length] * (len(ids) // length) + [len(ids) % length]
    assert [t for row, n in zip(blocks.ids, blocks.lengths, strict=True) for t in row[:n].tolist()] == ids
    assert len(paper_blocks(source, tokenizer, length, 2)) == 2


def test_a_block_of_one_token_predicts_nothing_and_is_left_out(source):
    tokenizer = byte_level()
    whole = paper_blocks(source, tokenizer, 10_000).lengths[0]
    assert paper_blocks(source, tokenizer, int(whole) - 1).lengths.tolist() == [whole - 1]


def test_no_longer_than_the_context():
    reading = PaperReading().within(tiny_model("llama"))
    assert (reading.length, reading.redundancy_length, reading.block) == (64, 64, 64)


def test_ids_and_no_tokenizer_are_refused(source, tmp_path):
    with pytest.raises(TextError, match="no tokenizer"):
        paper_texts(source, None, 4, 8)
    (tmp_path / "one.txt").write_text("a\n")
    with pytest.raises(TextError, match="two tokens"):
        paper_texts(str(tmp_path / "one.txt"), _One(), 4, 8)


class _One:
    is_fast = False

    def __call__(self, texts, **options):
        return _Ids({"input_ids": [[3] for _ in texts]})


class _Ids(dict):
    encodings = None
