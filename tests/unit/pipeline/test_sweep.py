"""What a sweep is made of, and what its runs say together; expected numbers by hand."""

import math

import pytest

from scarprune.errors import ArgumentError, ArtifactError
from scarprune.evaluate.plans import AT_ONCE
from scarprune.pipeline.sweep.grid import Run, Way, grid, reference_of
from scarprune.pipeline.sweep.ledger import Ledger, check_same
from scarprune.pipeline.sweep.summary import over_seeds, pareto, rows
from scarprune.pipeline.sweep.sweep import _together


def test_equal_ways_are_there_once_and_seeds_come_one_after_the_other() -> None:
    made = grid(
        ["scar_lp", "loss_proxy", "scar_prot"], [0.5, 0.2, 0.5], ["ls", "none"], ["none", "core"], [3, 1]
    )
    assert made.sparsities == (0.5, 0.2)
    assert made.ways == (
        Way("loss_proxy", "ls"),
        Way("loss_proxy", "ls", "core"),
        Way("loss_proxy", "none"),
        Way("loss_proxy", "none", "core"),
        Way("scar_prot", "ls", "core"),  # keeps the core whatever is said
        Way("scar_prot", "none", "core"),
    )
    runs = made.runs()
    assert len(runs) == 6 * 2 * 2
    assert [run.seed for run in runs] == [3] * 12 + [1] * 12
    assert [run.way.compensate for run in runs[:12]] == ["none"] * 6 + ["ls"] * 6


def test_presets_name_every_score_or_those_of_others() -> None:
    everything = set(grid(["all"], [0.5]).scores)
    baselines = set(grid(["baselines"], [0.5]).scores)
    assert {"wanda", "activation_power", "random", "taylor", "flap_wifv"} <= baselines < everything
    assert not baselines & {"scar_prot", "scar_conn", "loss_proxy", "fisher", "output_power"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((["lossproxy"], [0.5]), "no score called 'lossproxy'"),
        ((["wanda"], [0.5], ["lsq"]), "no compensation 'lsq'"),
        ((["wanda"], [0.5], ["ls"], ["cores"]), "none or core, not 'cores'"),
        ((["wanda"], [0.5], ["ls"], ["core"], [-1]), "0 or more, not -1"),
        ((["wanda"], []), "nothing to run"),
    ],
)
def test_what_no_grid_can_hold(arguments: tuple[list[str], ...], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        grid(*arguments)  # type: ignore[arg-type]


def test_the_reference_is_the_first_way_that_has_its_parts() -> None:
    made = grid(["wanda", "taylor"], [0.5], ["none", "ls"], ["none", "core"])
    assert reference_of(made, None) == Way("wanda")
    assert reference_of(made, "taylor") == Way("taylor")
    assert reference_of(made, "taylor:ls:core") == Way("taylor", "ls", "core")
    for wrong in ("random", "taylor:refit", "taylor:ls:core:more"):
        with pytest.raises(ArgumentError, match=f"reference '{wrong}' is not"):
            reference_of(made, wrong)


def test_mean_deviation_and_interval_over_three_seeds() -> None:
    found = over_seeds([1.0, 2.0, 6.0])
    reach = 4.302652729911275 * math.sqrt(7 / 3)  # Student's t, 97.5%, two degrees of freedom (tables)
    assert (found["value"], found["sd"]) == (3.0, pytest.approx(math.sqrt(7)))
    assert (found["low"], found["high"]) == (pytest.approx(3 - reach), pytest.approx(3 + reach))


def test_few_seeds_have_no_interval_and_a_lost_seed_no_mean() -> None:
    two, one, lost = over_seeds([1.0, 3.0]), over_seeds([1.0]), over_seeds([1.0, None, 3.0])
    assert (two["value"], two["low"], two["sd"]) == (2.0, None, pytest.approx(math.sqrt(2)))
    assert (one["value"], one["sd"]) == (1.0, None)
    assert (lost["value"], lost["sd"], lost["by_seed"]) == (None, None, [1.0, None, 3.0])
    assert lost["reason"] == "1 of 3 seeds gave no finite number"


def test_differences_are_paired_by_seed() -> None:
    made = grid(["wanda", "taylor"], [0.5], seeds=[0, 1, 2])
    excess = {"wanda": (1.0, 2.0, 3.0), "taylor": (1.5, 2.7, 3.3)}
    lines = {
        run: {
            "excess_nats": excess[run.way.score][run.seed],
            "achieved_sparsity": 0.5,
            "parameters_after": 100,
            "seconds": 1.0 + run.seed,
        }
        for run in made.runs()
    }
    base, other = rows(made, lines, Way("wanda"))
    assert base["difference"]["by_seed"] == [0.0, 0.0, 0.0]
    assert other["difference"]["value"] == pytest.approx(0.5)
    assert other["difference"]["sd"] == pytest.approx(0.2)  # of 0.5, 0.7, 0.3
    assert other["excess_nats"]["sd"] == pytest.approx(math.sqrt((1.0**2 + 0.2**2 + 0.8**2) / 2))
    assert (other["seconds"], base["pareto"], other["pareto"]) == (2.0, True, False)


def test_a_row_pays_where_nothing_as_small_costs_less() -> None:
    assert pareto([(10, 1.0), (10, 0.9), (8, 1.5), (9, 1.5), (12, None), (12, 0.9)]) == [
        False,
        True,
        True,
        False,
        False,
        False,
    ]


def test_a_torn_last_line_is_taken_off_and_a_damaged_one_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    ledger, run = Ledger(tmp_path), Run(Way("wanda", "ls", "core"), 0.5, 3)
    assert ledger.read() == {}
    ledger.append(run, {"excess_nats": 0.25})
    whole = ledger.path.read_bytes()
    ledger.path.write_bytes(whole + whole[:-1])  # all of a line but its end
    assert {key: line["excess_nats"] for key, line in ledger.read().items()} == {run: 0.25}
    assert ledger.path.read_bytes() == whole
    for damaged in (b"{}\n", b"[1]\n", b"\xff\n", b'{"format": "scarprune.run", "version": 1}\n'):
        ledger.path.write_bytes(whole + damaged)
        with pytest.raises(ArtifactError):
            ledger.read()


def test_other_settings_are_refused_by_name(tmp_path) -> None:  # type: ignore[no-untyped-def]
    line = {"settings": {"model": "a" * 64, "multiple_of": 1}}
    check_same(tmp_path, line, {"multiple_of": 1})
    with pytest.raises(ArtifactError, match="another sweep: its multiple of is 1, not auto"):
        check_same(tmp_path, line, {"model": "a" * 64, "multiple_of": "auto"})


def test_runs_as_masks_come_several_at_once_and_each_run_once() -> None:
    runs = grid(["all"], [0.5, 0.2], ["none", "ls"], seeds=[0]).runs()
    parts = list(_together(runs))
    assert [run for part in parts for run in part] == runs  # masks come first in a grid, too
    assert {len(part) for part in parts if not part[0].as_masks} == {1}
    masks = [len(part) for part in parts if part[0].as_masks]
    assert max(masks) == AT_ONCE
    assert sum(masks) == len(runs) // 2
