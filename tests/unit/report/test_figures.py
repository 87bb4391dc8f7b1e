"""Figures show what the JSON says, and say why where it says nothing."""

import importlib
import subprocess
import sys
from typing import Any

import pytest

from scarprune import plots
from scarprune.errors import ArgumentError
from scarprune.report.figure import AbsentError, all_figures, find_figure
from support.findings import KINDS, NASTY, findings, validation


def rows(name: str, document: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = importlib.import_module(f"scarprune.report.figures.{name}").rows(document)
    return found


@pytest.mark.parametrize("figure", all_figures(), ids=lambda figure: figure.name)
def test_every_figure_is_drawn_from_made_artifacts_or_says_why_not(figure: Any) -> None:
    document = KINDS[figure.artifact]()
    if figure.name == "agreement":
        with pytest.raises(AbsentError, match="needs two profiles of the model or more"):
            figure.spec(document)
        return
    spec = figure.spec(document)
    assert spec["width"] == "container"
    assert figure.caption in spec["description"]


@pytest.mark.parametrize("figure", all_figures(), ids=lambda figure: figure.name)
def test_every_figure_of_an_empty_artifact_is_absent(figure: Any) -> None:
    with pytest.raises(AbsentError, match=r"^Not drawn: "):
        figure.spec({"missing": {}, "sites": []})


def test_order_and_names_are_unique() -> None:
    names = [figure.name for figure in all_figures()]
    assert len(set(names)) == len(names) == len({figure.order for figure in all_figures()})
    assert dir(plots) == sorted(names)


def test_an_unknown_figure_names_the_known_ones() -> None:
    with pytest.raises(ArgumentError, match=r"no figure called 'pie'.*concentration"):
        find_figure("pie")
    assert not hasattr(plots, "pie")


def test_plots_draw_for_notebooks() -> None:
    assert plots.concentration(findings()).to_dict()["layer"]


def test_concentration_has_a_row_for_each_way_that_has_a_number() -> None:
    found = rows("concentration", findings())
    core = [row for row in found if row["what"] == "core"]
    assert [(row["site"], row["share"], row["low"], row["high"]) for row in core] == [
        (NASTY, 0.1, 0.1, 0.95),
        ("layers.1.mlp", 0.5, 0.1, 0.95),
    ]
    assert [row["share"] for row in found if row["what"] == "cross-fitted"] == [0.08, 0.08]
    assert len(found) == 4


def test_ranks_without_loss_are_left_out_of_the_logarithm() -> None:
    assert [(row["rank"], row["share"], row["mass"]) for row in rows("curves", findings(sites=1))] == [
        (1, 0.01, 0.5),
        (10, 0.1, 0.75),
    ]


def test_bins_are_given_by_their_edges() -> None:
    from scarprune.report.figures.activation import bins

    assert [(b["x"], b["x2"], b["y"], b["y2"], b["count"]) for b in bins(findings(sites=1))] == [
        (10.0, 100.0, 0.001, 0.1, 3),
        (1.0, 10.0, 0.1, 1.0, 4),
    ]


def test_only_positive_losses_have_a_place_on_the_diagonal() -> None:
    found = rows("singles", validation())
    assert [(row["channel"], row["score"], row["predicted"], row["measured"]) for row in found] == [
        (1, "loss proxy", 0.25, 0.5),
        (2, "loss proxy", 0.02, 0.01),
        (1, "block fisher", 0.3, 0.5),
        (2, "block fisher", 0.01, 0.01),
    ]


def test_a_core_that_writes_nothing_has_no_point() -> None:
    assert rows("write_support", findings()) == [
        {"site": NASTY, "layer": 0, "share": 0.2, "mean": 0.12, "low": 0.1, "high": 0.15}
    ]


def test_a_choice_is_named_by_what_differs_from_the_definition() -> None:
    document = findings()
    document["halo"]["sensitivity"] += [
        document["halo"]["sensitivity"][0] | {"rho": 0.005, "support_size": 32, "statistic": "top5"}
    ]
    assert [(row["choice"], row["statistic"], row["auc"]) for row in rows("sensitivity", document)] == [
        ("as defined", "mean", 0.6),
        ("halo 5%", "mean", 0.6),
        ("core 0.5%, 32 dimensions", "top 5", 0.6),
    ]


def test_the_best_recall_comes_first() -> None:
    assert rows("recall", validation()) == [
        {"score": "loss proxy", "recall": 0.5},
        {"score": "activation power", "recall": 0.25},
    ]


def test_bars_of_pruned_models_are_two_standard_errors() -> None:
    found = rows("forced_hit_rate", validation())
    assert [(row["share"], row["excess"], row["low"], row["high"]) for row in found] == [
        (0.0, 2.0, 1.5, 2.5),
        (1.0, 2.0, 1.5, 2.5),
    ]
    assert [(r["ranking"], r["protected"], r["low"]) for r in rows("random_core", validation())] == [
        ("by loss proxy", "core kept", 1.5),
        ("at random", "random 1% kept", 2.0),
    ]


def test_missing_numbers_of_a_curve_are_left_out() -> None:
    assert [(row["channels"], row["what"], row["nats"]) for row in rows("dose", validation())] == [
        (1, "measured", 0.1),
        (2, "measured", 0.3),
        (1, "predicted", 0.1),
        (2, "predicted", 0.2),
        (4, "predicted", 0.3),
    ]


def test_the_published_median_stands_beside_the_same_model_alone() -> None:
    document = findings() | {"paper": {"models": {"Llama-3.1-8B": {"core_share": {"median": 0.587}}}}}
    drawn = find_figure("concentration").draw
    assert "published median" not in drawn(document).to_json()
    assert "published median" in drawn(document | {"model": "meta-llama/Llama-3.1-8B"}).to_json()


def test_nothing_heavy_is_imported_until_something_is_drawn() -> None:
    code = (
        "import sys, scarprune.report.page, scarprune.report.export, scarprune.plots as p; dir(p);"
        "print([m for m in ('torch', 'transformers', 'altair', 'vl_convert') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_way_without_a_mean_is_left_out_of_the_sweep() -> None:
    found = rows("sweep", KINDS["sweep"]())
    assert [(row["score"], row["how"], row["sparsity"], row["excess"]) for row in found] == [
        ("loss proxy", "none", 0.2, 0.3),
        ("loss proxy", "none", 0.5, 1.2),
        ("loss proxy", "ls, core kept", 0.2, 0.2),
    ]
