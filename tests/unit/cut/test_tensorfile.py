"""Safetensors files as bytes: the library reads what we write, and we read what it writes."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from scarprune.cut import tensorfile
from scarprune.cut.slice import Selection
from scarprune.cut.tensorfile import pieces, write_header
from scarprune.errors import ArtifactError
from scarprune.models.checkpoint import read_header


def write(path: Path, header: dict[str, object], data: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(*offsets: int, shape: tuple[int, ...] = (2,), dtype: str = "BF16") -> dict[str, object]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_a_file_of_literal_bytes_is_read_where_it_lies(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a",
        {"b": entry(4, 8), "a": entry(0, 4), "__metadata__": {"format": "pt"}},
        b"\1\0\2\0\3\0\4\0",
    )
    tensors, metadata = read_header(path)
    assert [t.name for t in tensors] == ["a", "b"]
    assert metadata == {"format": "pt"}
    with path.open("rb") as file:
        assert [np.concatenate(list(pieces(file, t))).tolist() for t in tensors] == [[1, 2], [3, 4]]


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    arrays = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "ü": np.array([7, 8, 9], dtype=np.float16),
        "e": np.zeros((0, 3), dtype=np.int64),
    }
    save_file(arrays, tmp_path / "in", metadata={"format": "pt", "by": "hand"})
    tensors, metadata = read_header(tmp_path / "in")
    with (
        (tmp_path / "in").open("rb") as source,
        (tmp_path / "out").open("wb") as out,
    ):
        write_header(out, tensors, metadata)
        for tensor in tensors:
            out.writelines(piece.tobytes() for piece in pieces(source, tensor))
    again = load_file(tmp_path / "out")
    assert again.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array)
        assert again[name].dtype == array.dtype
    assert read_header(tmp_path / "out")[1] == {"format": "pt", "by": "hand"}


@st.composite
def cuts(draw: st.DrawFn) -> tuple[tuple[int, int], Selection]:
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    dim = draw(st.integers(0, 1))
    kept = sorted(draw(st.sets(st.integers(0, shape[dim] - 1))))
    for place in draw(st.lists(st.integers(0, len(kept)), max_size=3)):
        kept.insert(place, -1)
    return shape, Selection(dim, shape[dim], np.array(kept, dtype=np.int64))


@settings(deadline=None)
@given(cuts(), st.integers(1, 40))
def test_pieces_of_any_size_are_the_slice(
    tmp_path_factory: pytest.TempPathFactory, case: tuple[tuple[int, int], Selection], size: int
) -> None:
    shape, selection = case
    array = np.arange(1, shape[0] * shape[1] + 1, dtype=np.int16).reshape(shape)
    path = tmp_path_factory.getbasetemp() / "pieces"
    save_file({"a": array}, path)
    padded = np.concatenate([array, np.zeros_like(np.take(array, [0], selection.dim))], selection.dim)
    expected = padded[selection.index] if selection.dim == 0 else padded[:, selection.index]
    with pytest.MonkeyPatch.context() as patch, path.open("rb") as file:
        patch.setattr(tensorfile, "_PIECE_BYTES", size)
        (tensor,) = read_header(path)[0]
        found = [piece.ravel() for piece in pieces(file, tensor, selection)]
    assert np.concatenate([*found, np.empty(0, np.uint16)]).tolist() == expected.ravel().tolist()


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a", {"a": entry(0, 4)}, b"\0" * 4)
    (tensor,) = read_header(path)[0]
    path.write_bytes(path.read_bytes()[:-1])
    with path.open("rb") as file, pytest.raises(ArtifactError, match="ended while a was read"):
        list(pieces(file, tensor))


@pytest.mark.parametrize("name", ["a", "ab", "abcdefg", "ü"])
def test_data_begin_at_a_multiple_of_eight(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "in", {name: entry(0, 4)}, b"\0" * 4)
    with (tmp_path / "out").open("wb") as out:
        (placed,) = write_header(out, read_header(path)[0], {"format": "pt"})
    assert placed.start % 8 == 0
    assert (tmp_path / "out").stat().st_size == placed.start
