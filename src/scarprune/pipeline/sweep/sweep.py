"""A whole sweep: one profile a seed, every run judged on the same text, each kept as soon as it is done."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scarprune.artifacts import write_json
from scarprune.cut.compensate.compensation import find_compensation
from scarprune.errors import ArtifactError, ScarpruneError, TextError
from scarprune.evaluate.perplexity import Perplexity, perplexity
from scarprune.evaluate.plans import AT_ONCE
from scarprune.models.find import find_sites
from scarprune.models.fingerprint import fingerprint_model
from scarprune.models.supports import refuse_cut
from scarprune.pipeline.inputs import Compensating, Loading, Measuring, Planning, Reading, judged
from scarprune.pipeline.prune import as_needed, check_compensating, measured_once, rehearse
from scarprune.pipeline.stages import BETTER_TEXT, count_of, describe, describe_model, say_expected
from scarprune.pipeline.sweep.grid import Grid, Run, Way
from scarprune.pipeline.sweep.judge import Judge
from scarprune.pipeline.sweep.ledger import RUNS, Ledger, Line, check_same
from scarprune.pipeline.sweep.summary import rows
from scarprune.pipeline.texts import MOST_UNUSED, say_overlap
from scarprune.report.export import write_figures
from scarprune.runtime.progress import duration, remark
from scarprune.runtime.provenance import provenance
from scarprune.text.blocks import Blocks
from scarprune.text.hold_out import hold_out

SWEEP, PROFILES = "sweep.json", "profiles"
# Settings of what is fitted after a cut.
_FITTING = ("compensate_steps", "compensate_seconds", "own_text")


def sweep(
    source: str,
    out: Path,
    grid: Grid,
    reference: Way,
    *,
    text: str | None = None,
    evaluation: str | None = None,
    evaluation_blocks: int | None = None,
    loading: Loading = Loading(),
    reading: Reading = Reading(),
    measuring: Measuring = Measuring(),
    planning: Planning = Planning(),
    compensating: Compensating = Compensating(),
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Make and judge every run of ``grid``; write ``OUT/runs.jsonl`` as they end, then ``OUT/sweep.json``.

    A run with compensation ``none`` is judged as masks on the dense model; others on a cut copy of it, in the
    dtype of computing. A finished run is never made again, so that a sweep may also grow.

    Args:
        source: a folder, a hub id, a ``.gguf`` file or ``demo``.
        out: the folder of the sweep.
        grid: what is compared.
        reference: the way of the grid that others are compared with.
        text: what to measure on, drawn anew for each seed; None is the shipped calibration text.
        evaluation: what to judge on, the same for all runs; None is the shipped evaluation text, where
            ``text`` is None too.
        evaluation_blocks: how many blocks to judge on, drawn with the first seed; None is all of a text that
            was named, up to 64 otherwise.
        loading: how the model is loaded.
        reading: how text becomes blocks; its seed is not used.
        measuring: how it is profiled; labels and passes follow from what the scores need.
        planning: how widths are chosen; its score and its protection are not used.
        compensating: how long layers may be trained, and on what besides; its compensation is not used.
        resume: go on from what a sweep left in ``out``.
        overwrite: drop what a sweep left in ``out``.

    Raises:
        ArtifactError: a sweep is in ``out`` and neither is asked for, or it is of another model, text or
            other options.
        TextError: no text to judge on.
        PlanError: a sparsity that a way cannot reach.
    """
    _refuse_there(out, resume, overwrite)
    measuring = as_needed(measuring, *grid.scores)
    if evaluation is None and text is not None:
        raise TextError(
            "All runs are judged on the same text, and none was named.", hint="Name a text with --eval."
        )
    check_compensating(compensating, *grid.compensations)
    model, tokenizer = loading.load(source)
    _refuse_early(model, grid, planning)
    if text is None and source != "demo":
        remark(BETTER_TEXT)
    calibration = {
        seed: replace(reading, seed=seed).blocks(text or "demo", tokenizer, count_of(measuring.blocks))
        for seed in grid.seeds
    }
    _check_seeds(calibration, grid)
    chosen = MOST_UNUSED if evaluation is None and evaluation_blocks is None else evaluation_blocks
    reading = replace(reading, seed=grid.seeds[0])
    judge = Judge(
        model,
        tokenizer,
        reading.blocks(judged(evaluation or "demo"), tokenizer, chosen),
        planning,
        compensating,
        measuring.batch,
        measuring.compiled,
    )
    settings = {
        "model": fingerprint_model(model),
        "dtype": str(model.dtype).removeprefix("torch."),
        "evaluation_text": judge.blocks.fingerprint,
        "multiple_of": planning.multiple_of,
        "allocation": planning.allocation,
        "cap": planning.cap,
        **{name: getattr(compensating, name) for name in _FITTING},
    }
    if overwrite and not resume:
        _drop(out)
    ledger = Ledger(out)
    finished = ledger.read()
    for run, line in finished.items():
        text_of = {} if run.seed not in calibration else {"text": calibration[run.seed].fingerprint}
        unused = _FITTING if run.as_masks else ()  # where nothing is fitted
        used = {name: value for name, value in settings.items() if name not in unused}
        check_same(ledger.path, line, {**used, **text_of})
    out.mkdir(parents=True, exist_ok=True)
    work = _Work(source, out, model, judge, measuring, settings, ledger, finished)
    work.make([run for run in grid.runs() if run not in finished], calibration)
    document = _document(work, grid, reference, calibration)
    write_json(out / SWEEP, "sweep", document, overwrite=True)
    _draw(out)
    return document


@dataclass
class _Work:
    """What stays the same from run to run."""

    source: str
    out: Path
    model: Any
    judge: Judge
    measuring: Measuring
    settings: Mapping[str, Any]
    ledger: Ledger
    finished: dict[Run, Line]

    def make(self, pending: Sequence[Run], calibration: Mapping[int, Blocks]) -> None:
        """Make the ``pending`` runs, seed by seed."""
        if not pending:
            return
        count = len(self.finished)
        say_expected(self.model, self.judge.blocks, runs=len(pending) + 1)
        judge = self.judge
        dense = perplexity(self.model, judge.blocks, batch=judge.batch, compiled=judge.compiled)
        for seed, text in calibration.items():
            of_seed = [run for run in pending if run.seed == seed]
            if not of_seed:
                continue
            overlap = say_overlap(text, self.judge.blocks)
            folder = self.out / PROFILES / f"seed-{seed}"
            folder.mkdir(parents=True, exist_ok=True)
            profile = measured_once(self.model, text, self.measuring, seed, folder)
            facts = self._facts(seed, text, overlap, dense) | {"profile": profile.digest}
            for runs in _together(of_seed):
                done = len(self.finished) - count
                self._say(runs, done, pending)
                began = time.perf_counter()
                judged = self.judge(runs, profile, text, dense)
                spent = {"seconds": (time.perf_counter() - began) / len(runs)}
                for run, line in zip(runs, judged, strict=True):
                    self.finished[run] = self.ledger.append(run, line | spent | facts)

    def _facts(self, seed: int, text: Blocks, overlap: float | None, dense: Perplexity) -> dict[str, Any]:
        """What all runs of a seed say."""
        return {
            "dense": dense.as_json(),
            "calibration": describe(text),
            "evaluation": describe(self.judge.blocks),
            "overlap": overlap,
            "settings": {**self.settings, "text": text.fingerprint},
            "provenance": provenance(**describe_model(self.model, self.source), seed=seed),
        }

    def _say(self, runs: Sequence[Run], done: int, pending: Sequence[Run]) -> None:
        """Which of how many these are, and how long the rest takes, where every kind of it was timed."""
        by_kind: dict[str, list[float]] = {}
        for ended, line in self.finished.items():
            by_kind.setdefault(ended.way.compensate, []).append(float(line["seconds"]))
        rest = [by_kind.get(each.way.compensate) for each in pending[done:]]
        known = [sum(times) / len(times) for times in rest if times]
        left = f"; about {duration(sum(known))} left" if len(known) == len(rest) else ""
        which = f"Run {done + 1}" if len(runs) == 1 else f"Runs {done + 1} to {done + len(runs)}"
        words = runs[0].words if len(runs) == 1 else f"{runs[0].words}, to {runs[-1].words}"
        remark(f"{which} of {len(pending)}: {words}{left}.")


def _together(runs: Sequence[Run]) -> Iterator[Sequence[Run]]:
    """``runs`` in order: those judged as masks several at once, others one by one."""
    masks = [run for run in runs if run.as_masks]
    for start in range(0, len(masks), AT_ONCE):
        yield masks[start : start + AT_ONCE]
    for run in runs:
        if not run.as_masks:
            yield [run]


def _refuse_there(out: Path, resume: bool, overwrite: bool) -> None:
    there = [path for path in (out / RUNS, out / SWEEP, *_profiles(out)) if path.exists()]
    if there and not (resume or overwrite):
        raise ArtifactError(
            f"{there[0]} is already there.", hint="Pass --resume to go on with it, or --overwrite to drop it."
        )
    if resume and not there:
        remark(f"There is no sweep in {out} to go on from; beginning at the beginning.")


def _drop(out: Path) -> None:
    for path in (out / RUNS, out / SWEEP):
        path.unlink(missing_ok=True)
    for folder in _profiles(out):
        shutil.rmtree(folder)


def _profiles(out: Path) -> list[Path]:
    return sorted((out / PROFILES).glob("seed-*"))


def _refuse_early(model: Any, grid: Grid, planning: Planning) -> None:
    """What any run would refuse is refused before the first."""
    if grid.compensations != ("none",):
        refuse_cut(model)
    sites = find_sites(model)
    for way in grid.ways:
        for sparsity in grid.sparsities:
            rehearse(sites, sparsity, replace(planning, score=way.score, protect=way.protect), pad=True)


def _check_seeds(calibration: Mapping[int, Blocks], grid: Grid) -> None:
    """Say where seeds cannot differ by their text; refuse a text that no compensation could be fitted to."""
    if any(find_compensation(name).fit is not None for name in grid.compensations):
        hold_out(calibration[grid.seeds[0]])
    if len({blocks.fingerprint for blocks in calibration.values()}) < len(grid.seeds):
        remark("Seeds measure on the same blocks, so their spread does not show what another text would do.")


def _document(work: _Work, grid: Grid, reference: Way, calibration: Mapping[int, Blocks]) -> dict[str, Any]:
    """What ``sweep.json`` holds."""
    last = work.finished[grid.runs()[-1]]
    return {
        "provenance": provenance(**describe_model(work.model, work.source), seeds=list(grid.seeds)),
        "model": work.source,
        "settings": dict(work.settings),
        "calibration": [describe(blocks) for blocks in calibration.values()],
        "evaluation": describe(work.judge.blocks),
        "dense": last["dense"],
        "parameters_before": last["parameters_before"],
        "reference": reference.as_json(),
        "seeds": list(grid.seeds),
        "rows": rows(grid, work.finished, reference),
    }


def _draw(out: Path) -> None:
    """The curves as a file, where the library that draws is installed."""
    try:
        write_figures(out, "svg", overwrite=True)
    except ScarpruneError as reason:
        remark(f"No figure: {reason}")
