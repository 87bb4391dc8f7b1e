"""Cut the two texts that scarprune ships out of the two held-out novel files.

    python training/make_texts.py novels-calibration.txt.xz novels-evaluation.txt.xz src/scarprune/demo/data

Each text is about 0.5 MB: from every book of the file one run of whole paragraphs of equal length,
beginning a third of the way in, past title pages and lists of chapters.
"""

import lzma
import sys
from pathlib import Path

BOOK_SEPARATOR = "\n\n\n"
TEXT_BYTES = 500_000


def passage(book: str, num_bytes: int) -> str:
    """Whole paragraphs from a third of the book on, up to the one that passes ``num_bytes``."""
    start = book.index("\n\n", len(book) // 3) + 2
    chosen: list[str] = []
    for paragraph in book[start:].split("\n\n"):
        if len("\n\n".join(chosen).encode()) >= num_bytes:
            break
        if paragraph.strip():
            chosen.append(paragraph.strip("\n"))
    return "\n\n".join(chosen)


def main(calibration: str, evaluation: str, out: str) -> None:
    for name, source in (("calibration", calibration), ("evaluation", evaluation)):
        books = lzma.decompress(Path(source).read_bytes()).decode().split(BOOK_SEPARATOR)
        text = BOOK_SEPARATOR.join(passage(book, TEXT_BYTES // len(books)) for book in books)
        path = Path(out) / f"{name}.txt.xz"
        path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))
        print(f"{path}: {len(books)} books, {len(text.encode()):,} bytes, {path.stat().st_size:,} packed")


if __name__ == "__main__":
    main(*sys.argv[1:])
