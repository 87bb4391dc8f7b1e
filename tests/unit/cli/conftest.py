"""Running the command line inside the test's process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from scarprune.cli.main import run
from scarprune.runtime.progress import set_quiet


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def scarprune(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Result]]:
    """``scarprune("plan", path, ...)`` -> exit code and what was printed."""

    def call(*arguments: object) -> Result:
        code = run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    yield call
    set_quiet(False)
