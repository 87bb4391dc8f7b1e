"""Opening a file of text, plain or compressed, with errors a user can act on."""

import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from scarprune.errors import TextError

COMPRESSIONS = (".xz", ".gz", ".zst")


def kind_of(path: Path) -> str:
    """The suffix that says what a file holds, without that of its compression: ``.txt`` of ``a.txt.xz``."""
    name = path.name.lower()
    for compression in COMPRESSIONS:
        name = name.removesuffix(compression)
    return Path(name).suffix


def missing_package(what: str, package: str, extra: str) -> TextError:
    """The error of a source that needs an optional package which is not installed."""
    return TextError(
        f"{what} needs the package {package}, which is not installed.",
        hint=f"Install it with: pip install 'scarprune[{extra}]'",
    )


def require_file(path: Path) -> None:
    """Raise TextError unless ``path`` is a file that holds something."""
    if path.is_dir():
        raise TextError(
            f"{path} is a folder, not a text file.", hint=f"A data set folder is hf:{path}:SPLIT."
        )
    if not path.exists():
        raise TextError(f"There is no text file {path}.")
    if path.stat().st_size == 0:
        raise TextError(f"{path} is empty.")


@contextlib.contextmanager
def open_source(path: Path) -> Iterator[BinaryIO]:
    """Open ``path`` for reading bytes, unpacked where its name ends in ``.xz``, ``.gz`` or ``.zst``.

    Raises:
        TextError: missing, a folder, empty, truncated or damaged, or zstandard is not installed.
    """
    require_file(path)
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(_open(path))
        except EOFError as error:
            raise TextError(f"{path} is truncated: its compressed data ends too early.") from error
        except (lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
            raise TextError(f"{path} is no whole {path.suffix} file: {error}.") from error
        except OSError as error:
            raise TextError(f"{path} could not be read: {error.strerror or error}.") from error
        yield file


def read_text(path: Path) -> str:
    """The whole of ``path`` as UTF-8 with universal newlines, without a byte order mark.

    Raises:
        TextError: as ``open_source``, not UTF-8, or nothing but white space.
    """
    with open_source(path) as file:
        data = file.read()
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise TextError(
            f"{path} is not UTF-8 text: byte {error.start} (counted from 0) is 0x{data[error.start]:02x}.",
            hint="Convert it to UTF-8 first.",
        ) from error
    if not text or text.isspace():
        raise TextError(f"{path} is empty.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _open(path: Path) -> BinaryIO:
    match path.suffix.lower():
        case ".xz":
            with lzma.open(path) as packed:
                return io.BytesIO(packed.read())
        case ".gz":
            with gzip.open(path) as packed:
                return io.BytesIO(packed.read())
        case ".zst":
            return io.BytesIO(_unpack_zstd(path))
        case _:
            return path.open("rb")


def _unpack_zstd(path: Path) -> bytes:
    try:
        import zstandard
    except ImportError as error:
        raise missing_package(str(path), "zstandard", "zstd") from error
    data, unpacked = path.read_bytes(), bytearray()
    try:
        while data:  # frame by frame: only so does the end of a truncated file show
            frame = zstandard.ZstdDecompressor().decompressobj()
            unpacked += frame.decompress(data)
            if not frame.eof:
                raise EOFError
            data = frame.unused_data
    except zstandard.ZstdError as error:
        raise TextError(f"{path} is no whole .zst file: {error}.") from error
    return bytes(unpacked)
