"""Every kind of text source, and what is said of one that cannot be read."""

import gzip
import json
import lzma
import sys
import time
import zipfile
from types import SimpleNamespace

import datasets
import huggingface_hub
import pyarrow as pa
import pytest
import zstandard
from pyarrow import parquet

from scarprune import demo
from scarprune.errors import TextError
from scarprune.text.corpus import read_documents
from support.hub import http

PACK = {".xz": lzma.compress, ".gz": gzip.compress, ".zst": zstandard.compress}
TEXT = "One.\n\nStill one.\n\n\nTwo — dürfen.\n"
DOCUMENTS = ["One.\n\nStill one.", "Two — dürfen.\n"]


def refused(source, **options):
    with pytest.raises(TextError) as caught:
        read_documents(source, **options)
    return str(caught.value)


class TestPlainText:
    def test_three_newlines_separate_documents(self, tmp_path):
        (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
        assert read_documents(tmp_path / "a.txt") == DOCUMENTS

    def test_without_them_it_is_one_document(self, tmp_path):
        (tmp_path / "a.txt").write_text("one\n\ntwo")
        assert read_documents(str(tmp_path / "a.txt")) == ["one\n\ntwo"]

    def test_newlines_are_universal_and_a_byte_order_mark_is_dropped(self, tmp_path):
        (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\rc\r\n\r\n\r\nd")
        assert read_documents(tmp_path / "a.txt") == ["a\nb\nc", "d"]

    def test_a_document_of_nothing_but_white_space_is_none(self, tmp_path):
        (tmp_path / "a.txt").write_text("a\n\n\n \n\n\n\nb")
        assert read_documents(tmp_path / "a.txt") == ["a", "\nb"]

    def test_what_is_not_utf8_is_named_by_its_byte(self, tmp_path):
        (tmp_path / "a.txt").write_bytes(b"abc\xff def")
        assert "not UTF-8 text: byte 3 (counted from 0) is 0xff" in refused(tmp_path / "a.txt")

    @pytest.mark.parametrize("content", [b"", b" \n\n"])
    def test_an_empty_file_is_said_to_be_empty(self, tmp_path, content):
        (tmp_path / "a.txt").write_bytes(content)
        assert f"{tmp_path / 'a.txt'} is empty." in refused(tmp_path / "a.txt")

    def test_a_missing_file_a_folder_and_an_unknown_kind(self, tmp_path):
        (tmp_path / "a.doc").write_text("x")
        assert "There is no text file" in refused(tmp_path / "none.txt")
        assert "is a folder" in refused(tmp_path)
        message = refused(tmp_path / "a.doc")
        assert "'.doc'" in message
        assert ".jsonl" in message


class TestCompression:
    @pytest.mark.parametrize("suffix", PACK)
    def test_any_kind_may_be_packed(self, tmp_path, suffix):
        path = tmp_path / f"a.TXT{suffix}"
        path.write_bytes(PACK[suffix](TEXT.encode()))
        assert read_documents(path) == DOCUMENTS
        path = tmp_path / f"a.jsonl{suffix}"
        path.write_bytes(PACK[suffix](b'{"text": "x"}\n'))
        assert read_documents(path) == ["x"]

    def test_zstandard_frames_follow_each_other(self, tmp_path):
        (tmp_path / "a.txt.zst").write_bytes(zstandard.compress(b"one ") + zstandard.compress(b"two"))
        assert read_documents(tmp_path / "a.txt.zst") == ["one two"]

    @pytest.mark.parametrize("suffix", PACK)
    @pytest.mark.parametrize("kept", [0.5, 0.98])
    def test_a_truncated_file_is_never_read_as_a_short_one(self, tmp_path, suffix, kept):
        data = PACK[suffix]("".join(map(str, range(5000))).encode())
        path = tmp_path / f"a.txt{suffix}"
        path.write_bytes(data[: int(len(data) * kept)])
        assert f"{path} is truncated" in refused(path)

    @pytest.mark.parametrize("suffix", PACK)
    def test_something_else_under_that_name(self, tmp_path, suffix):
        path = tmp_path / f"a.txt{suffix}"
        path.write_bytes(b"this is plain text")
        assert f"is no whole {suffix} file" in refused(path)

    def test_zstandard_missing_names_the_extra(self, tmp_path, monkeypatch):
        (tmp_path / "a.txt.zst").write_bytes(zstandard.compress(b"x"))
        monkeypatch.setitem(sys.modules, "zstandard", None)
        assert "pip install 'scarprune[zstd]'" in refused(tmp_path / "a.txt.zst")


def write_jsonl(path, *rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n")
    return path


class TestJsonl:
    def test_a_document_per_line_and_blank_lines_are_none(self, tmp_path):
        path = write_jsonl(
            tmp_path / "a.jsonl", {"text": "a\u2028b\r\n"}, "", {"text": ""}, {"text": "c", "n": 1}
        )
        assert read_documents(path) == ["a\u2028b\r\n", "", "c"]

    def test_another_field(self, tmp_path):
        path = write_jsonl(tmp_path / "a.jsonl", {"body": "x", "text": 3})
        assert read_documents(path, field="body") == ["x"]

    def test_a_line_that_is_not_json_is_named(self, tmp_path):
        path = write_jsonl(tmp_path / "a.jsonl", {"text": "a"}, '{"text": ')
        assert f"Line 2 of {path} is not JSON" in refused(path)
        path.write_text("[" * 100_000)
        assert f"Line 1 of {path} is not JSON" in refused(path)

    def test_a_line_that_is_no_object(self, tmp_path):
        path = write_jsonl(tmp_path / "a.jsonl", "17")
        assert f"Line 1 of {path} is no JSON object but 17" in refused(path)

    def test_a_missing_field_names_those_that_are_there(self, tmp_path):
        path = write_jsonl(tmp_path / "a.jsonl", {"text": "a"}, {"id": 1, "content": "b"})
        message = refused(path)
        assert f"Line 2 of {path} has no field 'text'; its fields are: 'id', 'content'." in message
        assert "--field" in message

    @pytest.mark.parametrize("value", [None, 3, {"a": 1}, ["x"]])
    def test_a_field_that_is_no_text(self, tmp_path, value):
        path = write_jsonl(tmp_path / "a.jsonl", {"text": value})
        assert f"Line 1 of {path} holds no text but {value!r}" in refused(path)

    def test_half_of_a_surrogate_pair(self, tmp_path):
        path = write_jsonl(tmp_path / "a.jsonl", '{"text": "ab\\ud83d"}')
        assert f"Line 1 of {path} is no valid Unicode: character 2" in refused(path)

    def test_rows_without_any_text(self, tmp_path):
        assert "holds no text" in refused(write_jsonl(tmp_path / "a.jsonl", {"text": ""}))


TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role not in ('user', 'assistant') %}"
    "{{ raise_exception('odd role ' + m.role) }}{% endif %}[{{ m.role }}] {{ m.content }}{% endfor %}"
)
CHAT = [{"role": "user", "content": "Hi?"}, {"role": "assistant", "content": "Ho."}]


class TestChat:
    @pytest.fixture
    def chatty(self, tokenizer, monkeypatch):
        monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)
        return tokenizer

    def test_messages_go_through_the_template_without_its_bos(self, tmp_path, chatty):
        path = write_jsonl(tmp_path / "a.jsonl", {"id": 1, "messages": CHAT})
        assert read_documents(path, tokenizer=chatty) == ["[user] Hi?[assistant] Ho."]
        assert read_documents(path, tokenizer=chatty, field="messages") == ["[user] Hi?[assistant] Ho."]

    def test_text_comes_before_messages(self, tmp_path, chatty):
        path = write_jsonl(tmp_path / "a.jsonl", {"messages": CHAT, "text": "plain"})
        assert read_documents(path, tokenizer=chatty) == ["plain"]

    def test_chats_in_parquet(self, tmp_path, chatty):
        parquet.write_table(pa.table({"messages": [CHAT]}), tmp_path / "a.parquet")
        assert read_documents(tmp_path / "a.parquet", tokenizer=chatty) == ["[user] Hi?[assistant] Ho."]

    def test_what_cannot_be_rendered(self, tmp_path, tokenizer):
        path = write_jsonl(tmp_path / "a.jsonl", {"messages": CHAT})
        assert "there is no tokenizer" in refused(path)
        assert "tokenizer has no chat template" in refused(path, tokenizer=tokenizer)

    def test_what_the_template_refuses(self, tmp_path, chatty):
        path = write_jsonl(tmp_path / "a.jsonl", {"messages": [{"role": "tool", "content": "x"}]})
        message = refused(path, tokenizer=chatty)
        assert f"Line 1 of {path}" in message
        assert "odd role tool" in message


class TestParquet:
    def test_rows_are_documents(self, tmp_path):
        parquet.write_table(pa.table({"id": [1, 2], "text": ["a", "b é"]}), tmp_path / "a.parquet")
        assert read_documents(tmp_path / "a.parquet") == ["a", "b é"]
        (tmp_path / "b.parquet.gz").write_bytes(gzip.compress((tmp_path / "a.parquet").read_bytes()))
        assert read_documents(tmp_path / "b.parquet.gz") == ["a", "b é"]

    def test_what_is_wrong_is_said(self, tmp_path):
        path = tmp_path / "a.parquet"
        parquet.write_table(pa.table({"body": ["a", None]}), path)
        assert f"{path} has no field 'text'; its fields are: 'body'." in refused(path)
        assert f"Row 1 of {path} holds no text but None" in refused(path, field="body")
        path.write_bytes(path.read_bytes()[:-20])
        assert f"{path} is damaged or no parquet file" in refused(path)

    def test_pyarrow_missing_names_the_extra(self, tmp_path, monkeypatch):
        (tmp_path / "a.parquet").write_bytes(b"x")
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        assert "pip install 'scarprune[parquet]'" in refused(tmp_path / "a.parquet")


class TestDatasets:
    @pytest.fixture(autouse=True)
    def offline_cache(self, tmp_path, monkeypatch):
        monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)

    @pytest.fixture
    def folder(self, tmp_path):
        folder = tmp_path / "set"
        folder.mkdir()
        parquet.write_table(pa.table({"text": ["a", "", "b"]}), folder / "train-00000-of-00001.parquet")
        parquet.write_table(pa.table({"text": ["t"]}), folder / "test-00000-of-00001.parquet")
        return folder

    def test_a_folder_of_data_files(self, folder):
        assert read_documents(f"hf:{folder}:train") == ["a", "", "b"]
        assert read_documents(f"hf:{folder}:test") == ["t"]

    def test_a_config_and_a_slice_of_a_split(self, folder):
        assert read_documents(f"hf:{folder}:default:train[:2]") == ["a", ""]

    def test_a_folder_of_json_lines(self, tmp_path):
        (tmp_path / "set").mkdir()
        write_jsonl(tmp_path / "set" / "train.jsonl", {"body": "x"}, {"body": "y"})
        assert read_documents(f"hf:{tmp_path / 'set'}:train", field="body") == ["x", "y"]

    def test_what_save_to_disk_wrote(self, tmp_path):
        one = datasets.Dataset.from_dict({"text": ["a", "b"]}, split="train")
        one.save_to_disk(tmp_path / "one")
        datasets.DatasetDict({"valid": one}).save_to_disk(tmp_path / "many")
        assert read_documents(f"hf:{tmp_path / 'one'}:train") == ["a", "b"]
        assert read_documents(f"hf:{tmp_path / 'many'}:valid") == ["a", "b"]
        assert "no split 'test'; its splits are: valid" in refused(f"hf:{tmp_path / 'many'}:test")

    def test_a_hub_that_does_not_answer_is_said_at_once(self, monkeypatch):
        def refuse(url, timeout):
            raise ConnectionError("no route")

        monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
        session = SimpleNamespace(head=refuse)
        monkeypatch.setattr(huggingface_hub, "get_session", lambda: session)
        start = time.monotonic()
        assert "the hub cannot be reached, and the cache has no copy" in refused("hf:made-up/name:train")
        assert time.monotonic() - start < 5
        assert datasets.config.HF_HUB_OFFLINE is False

    def test_a_download_that_breaks_off_is_said(self, monkeypatch):
        def lose(*args, **kwargs):
            raise http.ReadError("peer\nclosed")

        session = SimpleNamespace(head=lambda url, timeout: None)
        monkeypatch.setattr(huggingface_hub, "get_session", lambda: session)
        monkeypatch.setattr(datasets, "load_dataset", lose)
        assert "hf:made-up/name:train could not be loaded: peer closed" in refused("hf:made-up/name:train")

    def test_what_is_wrong_is_said(self, folder, tmp_path):
        assert "could not be loaded" in refused(f"hf:{folder}:nonesuch")
        assert "could not be loaded" in refused(f"hf:{tmp_path / 'nowhere'}:train")
        assert "has no field 'body'; its fields are: 'text'" in refused(f"hf:{folder}:train", field="body")
        for source in ("hf:wikitext", "hf::train", "hf:a:b:c:d"):
            assert "hf:NAME[:CONFIG]:SPLIT" in refused(source)

    def test_datasets_missing_names_the_extra(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        assert "pip install 'scarprune[datasets]'" in refused("hf:wikitext:train")


class TestDemo:
    @pytest.fixture(autouse=True)
    def texts(self, tmp_path, monkeypatch):
        for part in ("calibration", "evaluation"):
            (tmp_path / f"{part}.txt.xz").write_bytes(lzma.compress(part.encode()))
        monkeypatch.setattr(demo, "text_path", lambda part: tmp_path / f"{part}.txt.xz")

    def test_demo_is_the_calibration_text(self):
        assert read_documents("demo") == read_documents("demo:calibration") == ["calibration"]
        assert read_documents("demo:evaluation") == ["evaluation"]

    def test_a_misspelt_part_is_answered_with_the_nearest(self):
        assert "Did you mean demo:evaluation?" in refused("demo:evalution")
        assert "demo:calibration and demo:evaluation" in refused("demo:xyz")

    def test_a_file_called_demo_is_reached_by_its_path(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "demo").mkdir()
        assert "is a folder" in refused("./demo")


def test_a_zip_is_no_parquet(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.parquet", "w") as archive:
        archive.writestr("x", "y")
    assert "no parquet file" in refused(tmp_path / "a.parquet")
