"""Running the command line inside the test's process, on a tiny model of random weights."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from scarprune.cli.main import run
from scarprune.runtime.progress import set_quiet
from support.tiny_models import tiny_model
from support.tokenizers import byte_level


@dataclass
class Result:
    code: int
    out: str
    err: str


@pytest.fixture
def scarprune(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Result]]:
    """``scarprune("plan", path, ...)`` -> exit code and what was printed."""

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Result(code, printed.out, printed.err)

    yield call
    set_quiet(False)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama folder: two layers of 48 channels, vocabulary 400, context 64, with its tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_model("llama", vocab_size=400).save_pretrained(folder)
    byte_level().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text for some 90 blocks of 32 tokens, no two alike."""
    words = np.random.default_rng(0).integers(0, 10_000, 800)
    path = tmp_path_factory.mktemp("texts") / "sea.txt"
    path.write_text(" ".join(f"sea{word}" for word in words))
    return path


@pytest.fixture(scope="session")
def profile(tiny: Path, text: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A profile of the tiny model, of 16 blocks of 32 tokens."""
    path = tmp_path_factory.mktemp("profiles") / "p.safetensors"
    options = ["--text", text, "--out", path, "--blocks", 16, "--length", 32, "--quiet"]
    assert run([str(word) for word in ("profile", tiny, *options)]) == 0
    return path
