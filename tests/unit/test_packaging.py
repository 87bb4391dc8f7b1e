"""What is installed: public names, pinned versions, the files of a wheel."""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import scarprune

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# The contract of the Python interface.
PUBLIC = [
    "analyze",
    "validate",
    "reproduce",
    "load_model",
    "read_blocks",
    "find_sites",
    "heal",
    "profile_model",
    "load_profile",
    "score",
    "core",
    "make_plan",
    "load_plan",
    "masked",
    "own_text",
    "prune_model",
    "save_model",
    "perplexity",
    "register_family",
    "register_score",
    "Blocks",
    "Bounds",
    "Site",
    "Profile",
    "Plan",
    "__version__",
    "ScarpruneError",
    "UnsupportedModelError",
    "TextError",
    "ArtifactError",
    "PlanError",
    "NumericsError",
    "MemoryBudgetError",
    "ArgumentError",
]


def test_the_public_names_are_all_there() -> None:
    assert sorted(scarprune.__all__) == sorted(PUBLIC)
    assert all(getattr(scarprune, name) is not None for name in PUBLIC)
    assert set(PUBLIC) <= set(dir(scarprune))


def test_type_checkers_see_the_names_where_they_are_loaded_from() -> None:
    tree = ast.parse((ROOT / "src/scarprune/__init__.py").read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    seen = {alias.name: node.module for node in imports for alias in node.names}
    homes = {name: f"scarprune.{home}" for name, home in scarprune._HOMES.items()}
    assert homes == {name: module for name, module in seen.items() if name in homes}


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'prune_everything'"):
        scarprune.prune_everything  # noqa: B018


def test_every_error_is_one_of_ours_and_nonsense_is_a_value_error() -> None:
    for name in PUBLIC:
        if name.endswith("Error"):
            assert issubclass(getattr(scarprune, name), scarprune.ScarpruneError)
    assert issubclass(scarprune.ArgumentError, ValueError)


def _names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=~! ]", requirement)[0].lower().replace("_", "-") for requirement in requirements}


def test_every_dependency_is_pinned() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines), "exact versions without local parts"
    pinned = _names(lines)
    extras = PROJECT["optional-dependencies"]
    needed = _names(PROJECT["dependencies"]) | _names(extras["dev"])
    needed |= _names(
        [each for extra in ("datasets", "gguf", "heal", "parquet", "zstd") for each in extras[extra]]
    )
    assert needed - pinned == {"scarprune", "setuptools"}
    assert not pinned & {"pip", "setuptools"}


def test_a_wheel_holds_the_built_in_model_and_no_tests(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(ROOT / "src", source / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    subprocess.run([*build, "--wheel-dir", str(tmp_path), str(source)], check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert wheel.name.startswith(f"scarprune-{scarprune.__version__}-py3-none-any")
    expected = {
        "scarprune/py.typed",
        "scarprune/cut/templates/card.md",
        "scarprune/demo/data/calibration.txt.xz",
        "scarprune/demo/data/evaluation.txt.xz",
        "scarprune/demo/data/model/config.json",
        "scarprune/demo/data/model/model.safetensors",
        "scarprune/demo/data/model/tokenizer.json",
    }
    assert expected <= set(names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"scarprune"}
