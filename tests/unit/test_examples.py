"""The examples run, and the README shows them and what they print."""

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from scarprune.cli.main import run
from scarprune.scores.score import _registry

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Examples write where they stand, and may register scores."""
    monkeypatch.chdir(tmp_path)
    known = dict(_registry())
    yield
    _registry().clear()
    _registry().update(known)


def _numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\.?\d*", text)]


def test_the_readme_shows_the_first_example_and_its_output(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code = (EXAMPLES / "prune.py").read_text()
    assert f"```python\n{code}```" in README
    runpy.run_path(str(EXAMPLES / "prune.py"))
    printed = capsys.readouterr().out
    (shown,) = re.findall(r"```text\n([\d,]+ -> .*?)```", README, re.DOTALL)
    assert re.sub(r"[\d,.]+", "N", printed) == re.sub(r"[\d,.]+", "N", shown)
    assert _numbers(printed) == pytest.approx(_numbers(shown), rel=0.02)  # machines round differently
    assert (tmp_path / "demo-small" / "model.safetensors").stat().st_size < 12.1e6


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("where_the_loss_sits", r"layer 5: 10 of 1024 channels hold \d\d.\d% of the loss proxy"),
        ("compare_scores", r"all channels +\d\d\.\d\n.*\nrandom +\d\d\d"),
        ("own_score", r"loss_times_power: keeps 512 channels of each site"),
    ],
)
def test_examples_in_python(name: str, sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"))
    assert re.search(sentence, capsys.readouterr().out, re.DOTALL)


def test_every_example_is_run() -> None:
    tested = {"prune.py", "prune.sh", "where_the_loss_sits.py", "compare_scores.py", "own_score.py"}
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == tested


def test_the_shell_example_is_in_the_readme_and_runs(tmp_path: Path) -> None:
    script = (EXAMPLES / "prune.sh").read_text()
    assert f"```sh\n{script}```" in README
    (tmp_path / "demo-small").mkdir()  # as the example in Python, read before, leaves it
    for line in script.splitlines():
        program, *arguments = shlex.split(line)
        assert (program, run(arguments)) == ("scarprune", 0)
    assert (tmp_path / "demo-cut" / "config.json").is_file()
