import json
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from scarprune.cli import main
from scarprune.errors import PlanError

Run = Callable[..., Any]


def test_help_names_every_command_and_no_other(scarprune: Run) -> None:
    result = scarprune("--help")
    assert result.code == 0
    listed = [
        line.split()[0] for line in result.out.split("Commands:\n")[1].splitlines() if line.startswith("  ")
    ]
    working = ["demo", "prune", "profile", "plan", "cut", "heal", "eval", "sweep", "bench"]
    assert listed == [
        *working,
        "analyze",
        "validate",
        "trajectory",
        "reproduce",
        "report",
        "families",
        "scores",
    ]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["scores", "--frobnicate"], "--frobnicate"),
        (["plan"], "Missing argument 'PROFILE'"),
        (["plan", "p", "--out", "o", "--sparsity", "half"], "'half' is not a valid float"),
        (
            ["plan", "p", "--out", "o", "--sparsity", "0.5", "--multiple-of", "x"],
            "'x' is neither auto nor a whole number",
        ),
        (["profile", "m", "--out", "o", "--compile", "maybe"], "'maybe' is not auto, on or off"),
    ],
)
def test_what_the_parser_refuses_exits_with_2(scarprune: Run, arguments: list[str], sentence: str) -> None:
    result = scarprune(*arguments)
    assert (result.code, result.out) == (2, "")
    assert sentence in result.err


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (
            PlanError("Sparsity 2 is nonsense.", hint="Take less."),
            1,
            "Error: Sparsity 2 is nonsense. Take less.\n",
        ),
        (
            FileNotFoundError(2, "No such file or directory", "x.txt"),
            1,
            "Error: No such file or directory: x.txt.\n",
        ),
        (OSError(28, "No space left on device"), 1, "Error: No space left on device.\n"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
    ],
)
def test_errors_are_one_sentence_and_no_traceback(
    scarprune: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, sentence: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("scarprune.scores.score.scores", fail)
    result = scarprune("scores")
    assert (result.code, result.out, result.err.lstrip("\n")) == (code, "", sentence)


def test_an_unexpected_error_is_not_hidden(scarprune: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scarprune.scores.score.scores", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scarprune("scores")


def test_json_on_stdout_is_alone_there(scarprune: Run) -> None:
    result = scarprune("scores", "--json", "-")
    document = json.loads(result.out)
    assert (document["format"], document["version"]) == ("scarprune.scores", 1)
    assert "loss_proxy" in [score["name"] for score in document["scores"]]


def test_an_existing_json_file_is_refused_before_any_work(scarprune: Run, tmp_path: Any) -> None:
    there = tmp_path / "there.json"
    there.write_text("mine")
    result = scarprune("scores", "--json", there)
    assert (result.code, result.out) == (1, "")
    assert result.err == f"Error: {there} is already there. Pass --overwrite to replace it.\n"
    assert there.read_text() == "mine"
    assert scarprune("scores", "--json", there, "--overwrite").code == 0
    assert json.loads(there.read_text())["format"] == "scarprune.scores"


def test_a_reader_that_leaves_gets_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "scarprune", "scores"],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (main.FAILED, "")


@pytest.mark.parametrize("arguments", [["-c", "import scarprune"], ["-m", "scarprune", "--help"]])
def test_starting_imports_nothing_slow(arguments: list[str]) -> None:
    listing = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], check=True, capture_output=True, text=True
    ).stderr
    imported = {line.rsplit("|", 1)[-1].strip().partition(".")[0] for line in listing.splitlines()}
    assert "scarprune" in imported
    assert not imported & {"torch", "transformers", "numpy", "scipy", "rich"}


def test_what_torch_says_of_its_own_threads_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> int:
        for words in (
            "Attempting to run cuBLAS, but there was no current CUDA context! Attempting to set it.",
            "Something is wrong.",
        ):
            warnings.warn(words, stacklevel=1)
        return 0

    monkeypatch.setattr(main, "run", run)
    with warnings.catch_warnings(record=True, action="always") as seen, pytest.raises(SystemExit):
        main.main()
    assert [str(warning.message) for warning in seen] == ["Something is wrong."]
