import pytest

from scarprune.cli.words import change, parameters, percent, size, widths, with_error


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0.5, "50.0%"),
        (0.0, "0.0%"),
        (1.0, "100.0%"),
        (0.0001, "<0.1%"),
        (0.9999, ">99.9%"),
        (0.0996, "10.0%"),
    ],
)
def test_percent_never_rounds_to_nothing_or_everything(share: float, shown: str) -> None:
    assert percent(share) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (999, "999 bytes"),
        (1000, "1.0 kB"),
        (14_680_000, "14.7 MB"),
        (135_000_000, "135 MB"),
        (2 * 10**9, "2.0 GB"),
    ],
)
def test_size(count: int, shown: str) -> None:
    assert size(count) == shown


def test_numbers_of_models() -> None:
    assert parameters(7_340_032) == "7.34M"
    assert parameters(8_030_261_248) == "8.03B"
    assert change(200, 150) == "-25%"


def test_an_error_is_shown_where_there_is_one() -> None:
    assert with_error(1.5739, 0.0123) == "1.574 ± 0.012"
    assert with_error(1.5739, None) == "1.574"


def test_widths_are_a_range_where_sites_differ() -> None:
    assert widths({"a": 1024, "b": 1024}, {"a": 512, "b": 512}) == "1,024 -> 512 channels in each of 2 sites"
    assert (
        widths({"a": 1024, "b": 1024}, {"a": 310, "b": 700})
        == "1,024 -> 310 to 700 channels in each of 2 sites"
    )
