"""What a second thread finds out about written pieces comes out in the first."""

import threading

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from scarprune.cut import transfer
from scarprune.cut.transfer import Checks, Transfer, write_file
from scarprune.errors import NumericsError
from scarprune.models.checkpoint import read_header


def nothing():
    pass


def fail():
    raise NumericsError("It differs.")


def test_an_error_comes_out_at_the_end():
    with Checks() as checks:
        checks.submit(fail)
        with pytest.raises(NumericsError):
            checks.finish()


def test_an_error_comes_out_while_others_are_submitted():
    with Checks() as checks:
        checks.submit(fail)
        for _ in range(transfer._WAITING - 1):
            checks.submit(nothing)
        with pytest.raises(NumericsError):
            checks.submit(nothing)


def interrupted(done):
    begun, go = threading.Event(), threading.Event()

    def slow():
        begun.set()
        done.append(go.wait(5))

    with Checks() as checks:
        checks.submit(slow)
        checks.submit(done.append, "the next")
        begun.wait(5)
        threading.Timer(0.05, go.set).start()
        raise KeyboardInterrupt


def test_what_waits_is_dropped_where_the_work_fails():
    done = []
    with pytest.raises(KeyboardInterrupt):
        interrupted(done)
    assert done == [True]


@pytest.fixture
def source(tmp_path):
    save_file({"a": np.arange(6, dtype=np.float16), "b": np.ones((2, 2), dtype=np.float32)}, tmp_path / "in")
    return [Transfer(tensor) for tensor in read_header(tmp_path / "in")[0]]


def write(path, transfers):
    with Checks() as checks:
        write_file(path, transfers, {"format": "pt"}, checks)
        checks.finish()


def test_a_file_is_written_and_checked(source, tmp_path):
    write(tmp_path / "out", source)
    found = load_file(tmp_path / "out")
    assert found["a"].tolist() == [0, 1, 2, 3, 4, 5]
    assert found["b"].tolist() == [[1, 1], [1, 1]]


def test_a_file_that_the_library_cannot_read_is_refused(source, tmp_path, monkeypatch):
    write_header = transfer.write_header

    def shifted(file, *rest):
        placed = write_header(file, *rest)
        file.write(b"\0")
        return placed

    monkeypatch.setattr(transfer, "write_header", shifted)
    with pytest.raises(NumericsError, match="out was written, but cannot be read"):
        write(tmp_path / "out", source)


def test_a_tensor_that_is_missing_is_found_out(source, tmp_path):
    write(tmp_path / "out", source[:1])
    with pytest.raises(NumericsError, match="out was written, but holds 1 tensors, not 2"):
        transfer._settle(tmp_path / "out", {"a", "b"})
