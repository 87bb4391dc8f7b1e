"""Sizes of memory as people write them."""

import pytest

from scarprune.errors import ArgumentError
from scarprune.runtime.size import parse_size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("20GiB", 21_474_836_480),
        ("20 gib", 21_474_836_480),
        ("1.5GB", 1_500_000_000),
        ("512 MiB", 536_870_912),
        ("3kB", 3000),
        ("70000", 70_000),
        (70_000, 70_000),
    ],
)
def test_sizes(text, count):
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["abc", "", "GiB", "20 apples", "-1GiB", "0", "1.2.3GB", 0, -5])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ArgumentError, match="is no size of memory"):
        parse_size(text)
