"""Documents that repeat what the program says must say the same."""

import runpy
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs"


def test_the_command_line_is_documented_as_it_is() -> None:
    render = runpy.run_path(str(DOCS / "make_cli.py"))["render"]
    assert (DOCS / "cli.md").read_text(encoding="utf-8") == render(), "run `make docs`"


def test_the_tables_of_costs_are_those_of_the_formulas_and_records() -> None:
    text = (DOCS / "scaling.md").read_text(encoding="utf-8")
    render = runpy.run_path(str(DOCS / "make_scaling.py"))["render"]
    assert render(text) == text, "run `make docs`"
