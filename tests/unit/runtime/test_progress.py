import pytest

from scarprune.runtime.progress import duration


@pytest.mark.parametrize(
    ("seconds", "shown"), [(4.24, "4.2 s"), (48.4, "48 s"), (720.0, "12 min"), (12240.0, "3.4 h")]
)
def test_duration(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown
