"""Files are whole or not there, and whatever is read was checked."""

import errno
import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import save_file

from scarprune import artifacts
from scarprune.artifacts import (
    atomic_file,
    atomic_folder,
    dump_json,
    partial_path,
    read_json,
    read_tensors,
    refuse_existing,
    write_json,
    write_tensors,
)
from scarprune.errors import ArtifactError, NumericsError


def full_disk(*_args, **_options):
    raise OSError(errno.ENOSPC, "No space left on device")


def half_then(error, path):
    path.write_text("half")
    raise error


def left_in(folder):
    return sorted(path.name for path in folder.iterdir())


# -- one file --------------------------------------------------------------------------------------


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "out.txt"
    with atomic_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert left_in(path.parent) == ["out.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_inside_leaves_nothing(tmp_path, error):
    with pytest.raises(error), atomic_file(tmp_path / "out.txt") as temporary:
        half_then(error, temporary)
    assert left_in(tmp_path) == []


def test_an_existing_file_is_refused_before_any_work(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("mine")
    with pytest.raises(ArtifactError) as caught, atomic_file(path):
        pytest.fail("the block must not run")
    assert str(caught.value) == f"{path} is already there. Pass --overwrite to replace it."
    assert path.read_text() == "mine"


def test_overwriting_keeps_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(path, overwrite=True) as temporary:
        half_then(RuntimeError, temporary)
    assert path.read_text() == "old"
    with atomic_file(path, overwrite=True) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert left_in(tmp_path) == ["out.txt"]


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "replace", full_disk)
    with pytest.raises(ArtifactError) as caught:
        write_json(tmp_path / "p.json", "plan", {})
    assert str(caught.value) == (
        f"The disk is full: {tmp_path / 'p.json'} could not be written. Free some space and run again."
    )
    assert left_in(tmp_path) == []


def test_a_disk_that_fills_while_json_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(ArtifactError, match="The disk is full"):
        write_json(tmp_path / "p.json", "plan", {})
    assert left_in(tmp_path) == []


def test_a_disk_that_fills_while_tensors_are_written(tmp_path, monkeypatch):
    def save(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        # what safetensors 0.8 says on a full tmpfs
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(artifacts, "save_file", save)
    with pytest.raises(ArtifactError, match="The disk is full"):
        write_tensors(tmp_path / "p.safetensors", "profile", {"a": np.ones(2)}, {})
    assert left_in(tmp_path) == []


def test_another_refusal_of_the_disk_keeps_its_reason(tmp_path, monkeypatch):
    def refuse(*_args):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ArtifactError, match=r"p\.json could not be written: Permission denied\."):
        write_json(tmp_path / "p.json", "plan", {})


def test_a_folder_that_is_a_file_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"p\.json could not be written: "):
        write_json(tmp_path / "file" / "p.json", "plan", {})


# -- one folder ------------------------------------------------------------------------------------


def test_a_folder_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "out"
    with atomic_folder(path) as growing:
        assert growing == partial_path(path) == tmp_path / "out.partial"
        (growing / "a").write_text("1")
        assert not path.exists()
    assert left_in(tmp_path) == ["out"]
    assert (path / "a").read_text() == "1"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_inside_leaves_no_folder(tmp_path, error):
    with pytest.raises(error), atomic_folder(tmp_path / "out") as growing:
        half_then(error, growing / "a")
    assert left_in(tmp_path) == []


def test_an_existing_folder_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ArtifactError, match="already there"), atomic_folder(tmp_path / "out"):
        pytest.fail("the block must not run")


def test_overwriting_a_folder_replaces_all_of_it(tmp_path):
    path = tmp_path / "out"
    path.mkdir()
    (path / "old").write_text("1")
    with pytest.raises(RuntimeError), atomic_folder(path, overwrite=True):
        raise RuntimeError
    assert left_in(path) == ["old"]
    with atomic_folder(path, overwrite=True) as growing:
        (growing / "new").write_text("2")
    assert left_in(path) == ["new"]
    assert left_in(tmp_path) == ["out"]


@pytest.mark.parametrize("out", [".", "..", "~"])
def test_the_folder_one_stands_or_lives_in_is_never_replaced(tmp_path, monkeypatch, out):
    home, here = tmp_path / "home", tmp_path / "home" / "work" / "here"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    with pytest.raises(ArtifactError, match="is not replaced"):
        refuse_existing(Path(out).expanduser(), overwrite=True)
    refuse_existing(here / "other", overwrite=True)


def test_a_place_that_cannot_be_written_is_refused_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ArtifactError, match=r"notes\.txt is no folder"):
        refuse_existing(tmp_path / "notes.txt" / "deep" / "out", overwrite=True)
    refuse_existing(tmp_path / "not" / "yet", overwrite=False)
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(ArtifactError, match=f"{tmp_path} may not be written to"):
        refuse_existing(tmp_path / "not" / "yet", overwrite=False)


def test_a_device_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArtifactError, match="pipe is no file and no folder"):
        refuse_existing(tmp_path / "pipe", overwrite=True)


def test_files_may_be_read_by_whom_the_umask_lets(tmp_path):
    (tmp_path / "plain").touch()
    write_tensors(tmp_path / "t.safetensors", "profile", {"a": np.ones(2)}, {})
    assert (tmp_path / "t.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_old_folder_comes_back_where_the_new_one_cannot_be_placed(tmp_path, monkeypatch):
    path, replace = tmp_path / "out", os.replace
    path.mkdir()
    (path / "old").write_text("1")

    def refuse_the_new_one(source, target):
        if Path(source) == partial_path(path):
            full_disk()
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse_the_new_one)
    with pytest.raises(ArtifactError, match="The disk is full"), atomic_folder(path, overwrite=True):
        pass
    assert left_in(tmp_path) == ["out"]
    assert left_in(path) == ["old"]


def test_what_a_killed_run_left_does_not_get_into_the_next(tmp_path):
    partial_path(tmp_path / "out").mkdir()
    (partial_path(tmp_path / "out") / "stale").write_text("1")
    with atomic_folder(tmp_path / "out") as growing:
        (growing / "a").write_text("1")
    assert left_in(tmp_path / "out") == ["a"]


# -- JSON ------------------------------------------------------------------------------------------


def test_json_comes_back(tmp_path):
    write_json(tmp_path / "e.json", "eval", {"perplexity": 3.5, "name": "naïve"})
    assert read_json(tmp_path / "e.json", "eval") == {
        "format": "scarprune.eval",
        "version": 1,
        "perplexity": 3.5,
        "name": "naïve",
    }


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_json_never_holds_what_is_not_finite(tmp_path, value):
    with pytest.raises(NumericsError, match=r"A scarprune\.eval file would hold a number that is not finite"):
        write_json(tmp_path / "e.json", "eval", {"perplexity": value})
    assert left_in(tmp_path) == []


def test_an_artifact_of_another_kind_is_refused(tmp_path):
    write_json(tmp_path / "e.json", "eval", {})
    with pytest.raises(ArtifactError, match=r"not a scarprune\.plan file: its format is 'scarprune\.eval'"):
        read_json(tmp_path / "e.json", "plan")


def test_a_newer_version_says_update(tmp_path):
    path = tmp_path / "e.json"
    path.write_text('{"format": "scarprune.eval", "version": 7}')
    with pytest.raises(ArtifactError) as caught:
        read_json(path, "eval")
    assert (
        str(caught.value) == f"{path} has format version 7; this scarprune reads up to 1. Update scarprune."
    )


@pytest.mark.parametrize("version", ["1", 1.0, True, None, 0, -3, [1]])
def test_a_version_that_is_none_is_refused(tmp_path, version):
    path = tmp_path / "e.json"
    path.write_text(json.dumps({"format": "scarprune.eval", "version": version}))
    with pytest.raises(ArtifactError, match="no usable version number"):
        read_json(path, "eval")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"version": ' + b"9" * 5000 + b"}",
        b"PK\x03\x04",
    ],
)
def test_what_is_no_json_is_refused(tmp_path, content):
    path = tmp_path / "e.json"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="is not a readable JSON file"):
        read_json(path, "eval")


@pytest.mark.parametrize("content", ["[]", "1", "null", '"x"'])
def test_json_that_is_no_object_is_refused(tmp_path, content):
    path = tmp_path / "e.json"
    path.write_text(content)
    with pytest.raises(ArtifactError, match="it holds no JSON object"):
        read_json(path, "eval")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(ArtifactError, match="There is no file"):
        read_json(tmp_path / "none", "eval")
    with pytest.raises(ArtifactError, match="is not a readable JSON file"):
        read_json(tmp_path, "eval")


# -- tensors ---------------------------------------------------------------------------------------


def test_tensors_come_back(tmp_path):
    path = tmp_path / "p.safetensors"
    arrays = {
        "a": np.arange(6.0).reshape(2, 3).T,
        "b": np.array([1, 2], np.int64),
        "c": np.ones(2, np.float32),
    }
    write_tensors(path, "profile", arrays, {"x": 1})
    header, tensors = read_tensors(path, "profile")
    assert header == {"format": "scarprune.profile", "version": 1, "x": 1}
    for name, array in arrays.items():
        assert tensors[name].dtype == array.dtype
        assert np.array_equal(tensors[name], array)


@pytest.mark.parametrize("keep", [0, 4, 8, 60, -1])
def test_a_truncated_file_is_refused(tmp_path, keep):
    path = tmp_path / "p.safetensors"
    write_tensors(path, "profile", {"a": np.ones(100)}, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ArtifactError, match="is damaged or not a safetensors file"):
        read_tensors(path, "profile")


def safetensors_bytes(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


OURS = {"scarprune": '{"format": "scarprune.profile", "version": 1}'}


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**63) + b"{}",
        safetensors_bytes(b"{" * 200),
        safetensors_bytes({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 800]}}, b"1" * 8),
        safetensors_bytes({"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 8]}}, b"1" * 8),
        safetensors_bytes({"a": {"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}}, b"1" * 8),
        safetensors_bytes({"__metadata__": {"scarprune": "[" * 100_000}}),
        safetensors_bytes({"__metadata__": {"scarprune": "{"}}),
        safetensors_bytes(
            {"__metadata__": OURS, "a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, b"1" * 4
        ),
        safetensors_bytes(
            {"__metadata__": OURS, "a": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}, b"1" * 4
        ),
    ],
)
def test_a_hostile_file_is_refused(tmp_path, content):
    path = tmp_path / "p.safetensors"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="is damaged or not a safetensors file"):
        read_tensors(path, "profile")


def test_a_checkpoint_is_no_profile(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": np.ones(2)}, path)
    with pytest.raises(ArtifactError, match=r"is a safetensors file, but not a scarprune\.profile file"):
        read_tensors(path, "profile")


def test_a_header_that_is_no_object_is_refused(tmp_path):
    path = tmp_path / "p.safetensors"
    save_file({"a": np.ones(2)}, path, metadata={"scarprune": "[1]"})
    with pytest.raises(ArtifactError, match="its header is no JSON object"):
        read_tensors(path, "profile")


def test_a_newer_file_of_tensors_says_update(tmp_path):
    path = tmp_path / "p.safetensors"
    save_file(
        {"a": np.ones(2)}, path, metadata={"scarprune": '{"format": "scarprune.profile", "version": 2}'}
    )
    with pytest.raises(ArtifactError, match="Update scarprune"):
        read_tensors(path, "profile")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_tensors_that_are_not_finite_are_refused(tmp_path, value):
    path = tmp_path / "p.safetensors"
    write_tensors(path, "profile", {"fine": np.ones(2), "bad": np.array([1, value])}, {})
    with pytest.raises(ArtifactError, match="is damaged: bad holds numbers that are not finite"):
        read_tensors(path, "profile")


def test_an_existing_file_of_tensors_is_refused(tmp_path):
    path = tmp_path / "p.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(ArtifactError, match="already there"):
        write_tensors(path, "profile", {"a": np.ones(2)}, {})
    assert path.read_bytes() == b"mine"


def test_dumped_json_says_what_it_is():
    assert json.loads(dump_json("plan", {"a": 1})) == {"format": "scarprune.plan", "version": 1, "a": 1}
