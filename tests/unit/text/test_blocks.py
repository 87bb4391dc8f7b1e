"""Blocks by each protocol, against tokenizing and slicing by hand."""

import inspect

import numpy as np
import pytest

from scarprune.errors import ArgumentError, TextError
from scarprune.text.blocks import Blocks, read_blocks

DOCUMENTS = [
    "The sea was calm that morning, and nobody had seen the boats return to the village.",
    "She said that she would wait; he said that he would not be late again. " * 3,
    "It was the best of times for the keeper of the lighthouse.",
]


@pytest.fixture
def path(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n\n".join(DOCUMENTS))
    return tmp_path / "a.txt"


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def stream_of(tokenizer, separator):
    stream = []
    for document in DOCUMENTS:
        stream += ([separator] if stream and separator is not None else []) + ids_of(tokenizer, document)
    return stream


def pieces_of(stream, size):
    return [stream[start : start + size] for start in range(0, len(stream) - size + 1, size)]


class TestPacked:
    def test_bos_then_pieces_of_the_joined_documents(self, path, tokenizer):
        blocks = read_blocks(path, tokenizer, count=None, length=16)
        pieces = pieces_of(stream_of(tokenizer, tokenizer.eos_token_id), 15)
        assert blocks.ids.dtype == np.int64
        assert blocks.ids.tolist() == [[tokenizer.bos_token_id, *piece] for piece in pieces]
        assert blocks.lengths.tolist() == [16] * len(pieces)
        assert blocks.bos
        assert blocks.protocol == "packed"
        assert blocks.source == str(path)

    def test_without_separator(self, path, tokenizer):
        blocks = read_blocks(path, tokenizer, count=None, length=16, separator=None)
        pieces = pieces_of(stream_of(tokenizer, None), 15)
        assert blocks.ids[:, 1:].tolist() == pieces

    def test_without_bos_pieces_are_longer(self, path, tokenizer):
        blocks = read_blocks(path, tokenizer, count=None, length=16, bos=False)
        assert blocks.ids.tolist() == pieces_of(stream_of(tokenizer, tokenizer.eos_token_id), 16)
        assert not blocks.bos

    def test_a_tokenizer_without_special_tokens(self, path, bare_tokenizer):
        blocks = read_blocks(path, bare_tokenizer, count=None, length=16)
        assert blocks.ids.tolist() == pieces_of(stream_of(bare_tokenizer, None), 16)
        assert not blocks.bos

    def test_a_tokenizers_own_special_tokens_are_not_added(self, path, adding_tokenizer):
        blocks = read_blocks(path, adding_tokenizer, count=None, length=16, separator=None)
        assert blocks.ids[:, 1:].tolist() == pieces_of(stream_of(adding_tokenizer, None), 15)

    def test_empty_documents_leave_no_separator(self, tmp_path, tokenizer):
        (tmp_path / "a.jsonl").write_text(
            '{"text": ""}\n{"text": "The sea"}\n{"text": ""}\n{"text": "the boats"}\n'
        )
        sea, boats = ids_of(tokenizer, "The sea"), ids_of(tokenizer, "the boats")
        length = 2 + len(sea) + len(boats)
        blocks = read_blocks(tmp_path / "a.jsonl", tokenizer, count=1, length=length)
        assert blocks.ids.tolist() == [[1, *sea, tokenizer.eos_token_id, *boats]]
        assert blocks.documents.tolist() == [[1, 3]]

    @pytest.mark.parametrize("bos", [True, False])
    def test_bytes_are_those_of_the_targets_text(self, path, tokenizer, bos):
        blocks = read_blocks(path, tokenizer, count=None, length=16, bos=bos)
        # A byte-level token is spelt with one letter per byte; a separator stands for no text.
        for row, count in zip(blocks.ids, blocks.bytes, strict=True):
            text = [t for t in tokenizer.convert_ids_to_tokens(row[1:]) if t != "</s>"]
            assert count == len("".join(text))

    def test_documents_of_each_block(self, path, tokenizer):
        blocks = read_blocks(path, tokenizer, count=None, length=16)
        owner = []
        for index, document in enumerate(DOCUMENTS):  # a separator belongs to the document it ends
            owner += [index] * (len(ids_of(tokenizer, document)) + 1)
        expected = [[owner[15 * i], owner[15 * i + 14]] for i in range(len(blocks))]
        assert blocks.documents.tolist() == expected


class TestContiguous:
    def test_one_text_with_the_tokenizers_own_special_tokens(self, path, adding_tokenizer):
        blocks = read_blocks(path, adding_tokenizer, count=None, length=16, protocol="contiguous")
        whole = adding_tokenizer("\n\n".join(DOCUMENTS))["input_ids"]
        assert whole[0] == 1
        assert blocks.ids.tolist() == pieces_of(whole, 16)
        assert not blocks.bos
        assert blocks.documents is None

    def test_no_bos_leaves_its_special_tokens_out(self, path, adding_tokenizer):
        blocks = read_blocks(path, adding_tokenizer, count=None, length=16, protocol="contiguous", bos=False)
        whole = adding_tokenizer("\n\n".join(DOCUMENTS), add_special_tokens=False)["input_ids"]
        assert blocks.ids.tolist() == pieces_of(whole, 16)

    def test_empty_rows_stay_as_blank_lines(self, tmp_path, tokenizer):
        (tmp_path / "a.jsonl").write_text('{"text": "The sea"}\n{"text": ""}\n{"text": "the boats"}\n')
        whole = ids_of(tokenizer, "The sea\n\n\n\nthe boats")
        blocks = read_blocks(tmp_path / "a.jsonl", tokenizer, 1, len(whole), protocol="contiguous")
        assert blocks.ids.tolist() == [whole]

    def test_bytes_leave_out_each_blocks_first_token(self, path, tokenizer):
        blocks = read_blocks(path, tokenizer, count=None, length=16, protocol="contiguous")
        for row, count in zip(blocks.ids, blocks.bytes, strict=True):
            assert count == len("".join(tokenizer.convert_ids_to_tokens(row[1:])))

    def test_bos_cannot_be_asked_for(self, path, tokenizer):
        with pytest.raises(ArgumentError, match="Contiguous blocks have no BOS"):
            read_blocks(path, tokenizer, protocol="contiguous", bos=True)


class TestDocuments:
    def test_each_by_itself_truncated(self, path, tokenizer):
        blocks = read_blocks(path, tokenizer, count=None, length=30, protocol="documents")
        rows = [[1, *ids_of(tokenizer, document)][:30] for document in DOCUMENTS]
        assert blocks.lengths.tolist() == [len(row) for row in rows]
        assert [row[:n].tolist() for row, n in zip(blocks.ids, blocks.lengths, strict=True)] == rows
        assert blocks.documents.tolist() == [[0, 0], [1, 1], [2, 2]]

    def test_nothing_to_predict_is_left_out(self, tmp_path, tokenizer, bare_tokenizer):
        (tmp_path / "a.jsonl").write_text('{"text": ""}\n{"text": "The"}\n{"text": "The sea"}\n')
        with_bos = read_blocks(tmp_path / "a.jsonl", tokenizer, None, 8, protocol="documents")
        without = read_blocks(tmp_path / "a.jsonl", bare_tokenizer, None, 8, protocol="documents")
        assert with_bos.documents[:, 0].tolist() == [1, 2]
        assert without.documents[:, 0].tolist() == [2]

    def test_bytes(self, path, tokenizer):
        blocks = read_blocks(path, tokenizer, count=None, length=1000, protocol="documents")
        assert blocks.bytes.tolist() == [len(document) for document in DOCUMENTS]
        headless = read_blocks(path, tokenizer, count=None, length=1000, protocol="documents", bos=False)
        firsts = [len(tokenizer.convert_ids_to_tokens(ids_of(tokenizer, d))[0]) for d in DOCUMENTS]
        assert (blocks.bytes - headless.bytes).tolist() == firsts


class TestDraw:
    @pytest.fixture
    def long(self, tmp_path):
        words = np.random.default_rng(0).choice(["sea", "boat", "calm", "late", "wait", "best"], 4000)
        (tmp_path / "long.txt").write_text(" ".join(words))
        return tmp_path / "long.txt"

    def positions(self, blocks, everything):
        rows = [row.tobytes() for row in everything.ids]
        return [rows.index(row.tobytes()) for row in blocks.ids]

    def test_one_from_each_run_in_order(self, long, tokenizer):
        everything = read_blocks(long, tokenizer, count=None, length=16)
        total = len(everything)
        assert total > 300
        for seed in range(5):
            found = self.positions(read_blocks(long, tokenizer, 16, 16, seed), everything)
            for run, position in enumerate(found):
                assert run * total // 16 <= position < (run + 1) * total // 16

    def test_seeds_differ_and_repeat_even_on_one_document(self, long, tokenizer):
        first, again, other = (read_blocks(long, tokenizer, 16, 16, seed) for seed in (0, 0, 1))
        assert first.fingerprint == again.fingerprint
        shared = {row.tobytes() for row in first.ids} & {row.tobytes() for row in other.ids}
        assert len(shared) < 8
        assert other.seed == 1

    def test_as_many_as_there_are_is_all_of_them(self, long, tokenizer):
        everything = read_blocks(long, tokenizer, count=None, length=16)
        same = read_blocks(long, tokenizer, count=len(everything), length=16, seed=3)
        assert np.array_equal(same.ids, everything.ids)
        assert np.array_equal(same.bytes, everything.bytes)

    def test_skipped_blocks_are_not_used_again(self, long, tokenizer):
        everything = read_blocks(long, tokenizer, count=None, length=16)
        used = read_blocks(long, tokenizer, 40, 16)
        rest = read_blocks(long, tokenizer, None, 16, skip=used)
        assert len(rest) == len(everything) - 40
        assert not {row.tobytes() for row in rest.ids} & {row.tobytes() for row in used.ids}
        positions = self.positions(rest, everything)
        assert positions == sorted(positions)
        with pytest.raises(TextError, match=r"gives 0 blocks of 16 tokens besides those already in use"):
            read_blocks(long, tokenizer, None, 16, skip=everything)

    def test_blocks_given_as_ids_can_be_skipped(self, long, tokenizer, tmp_path):
        np.save(tmp_path / "used.npy", read_blocks(long, tokenizer, 40, 16).ids)
        used = read_blocks(tmp_path / "used.npy", None)
        by_ids = read_blocks(long, tokenizer, None, 16, skip=used)
        assert (
            by_ids.fingerprint
            == read_blocks(long, tokenizer, None, 16, skip=read_blocks(long, tokenizer, 40, 16)).fingerprint
        )

    def test_skipping_needs_the_same_cut(self, long, tokenizer):
        used = read_blocks(long, tokenizer, 4, 16)
        with pytest.raises(ArgumentError, match="cut as 'packed' to 16 tokens, these as 'packed' to 32"):
            read_blocks(long, tokenizer, 4, 32, skip=used)
        with pytest.raises(ArgumentError, match="Cut both with the same"):
            read_blocks(long, tokenizer, 4, 16, skip=used, bos=False)
        with pytest.raises(ArgumentError, match="these as 'contiguous'"):
            read_blocks(long, tokenizer, 4, 16, skip=used, protocol="contiguous")


class TestRefusals:
    def test_too_little_text_says_how_much_there_is(self, path, tokenizer):
        there = len(pieces_of(stream_of(tokenizer, 2), 15))
        with pytest.raises(TextError) as caught:
            read_blocks(path, tokenizer, count=500, length=16)
        assert f"{path} gives {there} blocks of 16 tokens; 500 were asked for." in str(caught.value)
        for remedy in ("--length", "--blocks", "more text"):
            assert remedy in str(caught.value)
        with pytest.raises(TextError, match=r"gives 0 blocks of 5000 tokens; 1 were asked for"):
            read_blocks(path, tokenizer, count=None, length=5000)

    def test_text_without_a_tokenizer(self, path):
        with pytest.raises(TextError, match="no tokenizer to turn it into token ids"):
            read_blocks(path, None)

    def test_bos_from_a_tokenizer_that_has_none(self, path, bare_tokenizer):
        with pytest.raises(TextError, match="this model's tokenizer has none"):
            read_blocks(path, bare_tokenizer, bos=True)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"count": 0}, "0 blocks cannot be read"),
            ({"length": 1}, "Blocks of 1 tokens predict nothing"),
            ({"protocol": "stacked"}, "'stacked' is no protocol.*packed, contiguous, documents"),
            ({"separator": "\n"}, "is no separator of documents"),
            ({"seed": -1}, r"seed must be an integer from 0 to 2\^64 - 1, not -1"),
            ({"seed": 1 << 64}, "not 18446744073709551616"),
        ],
    )
    def test_arguments_that_can_never_be_right(self, path, tokenizer, options, words):
        with pytest.raises(ArgumentError, match=words):
            read_blocks(path, tokenizer, **options)


def test_the_signature_is_the_contracts():
    parameters = inspect.signature(read_blocks).parameters
    assert list(parameters)[:6] == ["source", "tokenizer", "count", "length", "seed", "protocol"]
    defaults = {name: parameters[name].default for name in ("count", "length", "seed", "protocol")}
    assert defaults == {"count": 128, "length": 512, "seed": 0, "protocol": "packed"}
    assert repr(parameters["count"].default) == "128"


def test_targets_and_fingerprint():
    ids = np.array([[1, 5, 6], [1, 7, 0]])
    blocks = Blocks(ids, np.array([3, 2]), None, "documents", "x")
    assert blocks.targets == 3
    other = Blocks(np.array([[1, 5, 6], [1, 7, 9]]), np.array([3, 2]), None, "tokens", "y")
    assert blocks.fingerprint == other.fingerprint  # what differs is padding
    assert blocks.fingerprint != other.take(np.array([1, 0])).fingerprint
