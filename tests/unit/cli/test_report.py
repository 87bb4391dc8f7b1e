"""``scarprune report`` on the command line."""

import json
from pathlib import Path

from click.testing import CliRunner

from scarprune.cli.report import command
from support.findings import write_folder


def test_report_writes_the_page_the_figures_and_its_facts(tmp_path: Path) -> None:
    write_folder(tmp_path, "trajectory")
    done = CliRunner().invoke(
        command, [str(tmp_path), "--figures", "png", "--json", "-"], catch_exceptions=False
    )
    facts = json.loads(done.stdout)
    assert facts["page"] == str(tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size == facts["bytes"]
    assert (tmp_path / "figures" / "births.png").read_bytes().startswith(b"\x89PNG")
    assert len(facts["files"]) == 3


def test_report_says_in_words_what_it_wrote(tmp_path: Path) -> None:
    done = CliRunner().invoke(command, [str(write_folder(tmp_path))], catch_exceptions=False)
    said = " ".join(done.stdout.split())  # lines end where the folder's name is long
    assert "23 figures" in said
    assert "Not drawn: agreement" in said
