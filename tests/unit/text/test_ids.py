"""Token ids given as .npy files."""

import gzip
import io
import lzma
import pickle

import numpy as np
import pytest
import zstandard

from scarprune.errors import TextError
from scarprune.text.blocks import read_blocks

IDS = np.arange(1300).reshape(130, 10) % 97


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "ids.npy", IDS.astype(np.uint16))
    return tmp_path / "ids.npy"


def saved(path, array):
    np.save(path, array)
    return path


def test_all_rows_in_order_without_a_tokenizer(path):
    blocks = read_blocks(path, None, length=99, seed=5)
    assert blocks.ids.dtype == np.int64
    assert np.array_equal(blocks.ids, IDS)  # more than the 128 that text would give
    assert blocks.lengths.tolist() == [10] * 130
    assert blocks.protocol == "tokens"
    assert blocks.bytes is None
    assert np.array_equal(read_blocks(path, None, count=None).ids, IDS)


@pytest.mark.parametrize("count", [7, 128])
def test_the_first_rows_where_a_count_is_given(path, count):
    assert np.array_equal(read_blocks(path, None, count=count).ids, IDS[:count])


def test_too_few_rows_is_an_error_only_for_who_asked(tmp_path):
    path = saved(tmp_path / "a.npy", IDS[:3])
    assert len(read_blocks(path, None)) == 3
    with pytest.raises(TextError, match=r"holds 3 blocks; 128 were asked for"):
        read_blocks(path, None, count=128)


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".xz", lzma.compress), (".gz", gzip.compress), (".zst", zstandard.compress)]
)
def test_compressed(path, suffix, pack):
    packed = path.with_name(f"ids.npy{suffix}")
    packed.write_bytes(pack(path.read_bytes()))
    assert np.array_equal(read_blocks(packed, None).ids, IDS)


def test_whether_rows_begin_with_bos(tmp_path, tokenizer, bare_tokenizer):
    ones = np.full((3, 4), 7)
    ones[:, 0] = tokenizer.bos_token_id
    nines = np.full((3, 4), 7)
    nines[:, 0] = 9
    ones, nines, mixed = (
        saved(tmp_path / f"{name}.npy", a) for name, a in zip("abc", (ones, nines, IDS), strict=True)
    )
    assert read_blocks(ones, tokenizer).bos
    assert not read_blocks(nines, tokenizer).bos
    assert not read_blocks(ones, bare_tokenizer).bos
    assert read_blocks(nines, None).bos
    assert not read_blocks(mixed, None).bos
    assert not read_blocks(ones, tokenizer, bos=False).bos


def test_skip(path):
    used = read_blocks(path, None, count=2)
    assert np.array_equal(read_blocks(path, None, skip=used).ids[0], IDS[2])
    # rows repeat every 97 ids: with the first two go those equal to them
    assert len(read_blocks(path, None, skip=used)) == sum(r.tolist() not in IDS[:2].tolist() for r in IDS)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.arange(5), r"holds int64 numbers \[5\], not token ids"),
        (np.ones((2, 3)), r"holds float64 numbers \[2, 3\]"),
        (np.array([[True, False]]), "holds bool numbers"),
        (np.zeros((0, 5), int), "holds 0 blocks of 5 tokens"),
        (np.zeros((5, 1), int), "5 blocks of 1 tokens: nothing to predict"),
        (np.array([[1, -1]]), "holds -1, which is no token id"),
        (np.array([[1, 2**63]], dtype=np.uint64), "holds 9223372036854775808, which is no token id"),
    ],
)
def test_what_is_no_token_ids(tmp_path, array, words):
    with pytest.raises(TextError, match=words):
        read_blocks(saved(tmp_path / "a.npy", array), None)


class Explodes:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


@pytest.mark.parametrize("content", ["pickle", "object", "truncated", "text", "huge", "npz"])
def test_a_hostile_or_damaged_file_is_refused_and_never_unpickled(tmp_path, content):
    whole = io.BytesIO()
    np.save(whole, IDS)
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000, 1000000), }"
    objects = io.BytesIO()
    np.save(objects, np.array([[Explodes()]], dtype=object), allow_pickle=True)
    archive = io.BytesIO()
    np.savez(archive, ids=IDS)
    path = tmp_path / "a.npy"
    path.write_bytes(
        {
            "pickle": pickle.dumps(Explodes()),
            "object": objects.getvalue(),
            "truncated": whole.getvalue()[:-100],
            "text": b"not an array",
            "huge": b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64),
            "npz": archive.getvalue(),
        }[content]
    )
    with pytest.raises(TextError, match=r"a\.npy is damaged or no \.npy file"):
        read_blocks(path, None)
