"""Multiple-choice and other tasks, run by lm_eval (EleutherAI's harness) on a model in memory."""

import difflib
import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scarprune.errors import ArgumentError, ScarpruneError, TextError
from scarprune.evaluate.task_files import is_local, refuse_code
from scarprune.stats.summary import standard_error

# The tasks of arXiv 2604.23475, at the numbers of examples that it states. Its authors scored 100 items of
# each by code of their own; these are lm_eval's definitions and whole test sets.
PAPER = {
    "hellaswag": 0,
    "piqa": 0,
    "boolq": 0,
    "winogrande": 0,
    "arc_easy": 0,
    "arc_challenge": 0,
    "openbookqa": 0,
    "mmlu": 5,
}


@dataclass(frozen=True, slots=True)
class Asking:
    """Which tasks, and how they are put.

    Attributes:
        tasks: names that lm_eval knows, ``paper`` (the paper's list), YAML files, or folders of such files.
        num_fewshot: examples before each question; None is the task's own number (of ``paper``: its).
        limit: items of each task, the first ones; None is all of them.
    """

    tasks: tuple[str, ...]
    num_fewshot: int | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if not all(self.tasks) or not self.tasks:
            raise ArgumentError("An empty name is no task.", hint="Separate names by commas: hellaswag,piqa.")
        if self.num_fewshot is not None and self.num_fewshot < 0:
            raise ArgumentError(f"num_fewshot must not be below zero, and is {self.num_fewshot}.")
        if self.limit is not None and self.limit < 1:
            raise ArgumentError(f"limit must be a positive number of items, not {self.limit}.")

    def by_fewshot(self) -> dict[int | None, list[str]]:
        """The names for each number of examples: lm_eval takes one number a run."""
        wanted: dict[int | None, list[str]] = {}
        for name in self.tasks:
            known = PAPER if name == "paper" else {name: None}
            for task, examples in known.items():
                shots = examples if self.num_fewshot is None else self.num_fewshot
                wanted.setdefault(shots, []).append(task)
        return wanted


@dataclass(frozen=True, eq=False)
class Metric:
    """One number of a task.

    Attributes:
        value: as lm_eval aggregates it; None where that is not finite.
        standard_error: lm_eval's; None where it gives none.
        items: float64 [n], of each item, where their mean is ``value``; else None.
    """

    value: float | None
    standard_error: float | None
    items: np.ndarray | None = None


@dataclass(frozen=True)
class TaskResult:
    """What a model did on one task or group of tasks.

    Attributes:
        n: items that were judged.
        num_fewshot: examples before each; None where the tasks of a group differ.
        version: of the task's definition; None where it has none.
        part_of: the group that counts it in; None for what was asked for itself.
        metrics: by lm_eval's name (``acc``, ``acc_norm``); with the filter where the task has several.
    """

    n: int
    num_fewshot: int | None
    version: float | None
    part_of: str | None
    metrics: Mapping[str, Metric]

    def as_json(self, dense: "TaskResult | None" = None) -> dict[str, Any]:
        """``accuracy`` is lm_eval's ``acc``; with ``dense`` also each metric's distance from its."""
        acc = self.metrics.get("acc", Metric(None, None))
        numbers: dict[str, dict[str, float | None]] = {}
        for name, metric in self.metrics.items():
            numbers[name] = {"value": metric.value, "standard_error": metric.standard_error}
            if dense is not None:
                away, error = difference(dense.metrics[name], metric)
                numbers[name] |= {"difference": away, "difference_standard_error": error}
        return {
            "accuracy": acc.value,
            "standard_error": acc.standard_error,
            "n": self.n,
            "num_fewshot": self.num_fewshot,
            "version": self.version,
            "part_of": self.part_of,
            "metrics": numbers,
        }


TaskResults = Mapping[str, TaskResult]


def difference(dense: Metric, other: Metric) -> tuple[float | None, float | None]:
    """``other`` less ``dense``, with the standard error of the items' paired differences where known."""
    if dense.value is None or other.value is None:
        return None, None
    away = other.value - dense.value
    if dense.items is None or other.items is None or len(dense.items) != len(other.items):
        return away, None
    return away, standard_error(other.items - dense.items)


def run_tasks(
    model: Any,
    tokenizer: Any,
    asking: Asking,
    *,
    batch: int | Literal["auto"] = "auto",
    bos: bool | None = None,
    trust_remote_code: bool = False,
) -> TaskResults:
    """Run tasks on ``model`` as it is, masks included; lm_eval's own settings but for float32 probabilities.

    Local task files are as trusted as programs: lm_eval runs their templates (Jinja's), and Python beside
    them where ``trust_remote_code`` says so. Data that they name are found from the working directory.

    Args:
        model: a causal language model on its device.
        tokenizer: its tokenizer.
        asking: which tasks.
        batch: sequences at once; ``auto`` takes what fits.
        bos: whether BOS stands in front; None as the tokenizer does by itself.
        trust_remote_code: run Python code that comes with task files.

    Raises:
        ScarpruneError: lm_eval is not installed.
        TextError: an unknown task, no tokenizer, or data that cannot be had.
        MemoryBudgetError: the batch does not fit.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise ScarpruneError(
            "Tasks need the package lm_eval, which is not installed.",
            hint="Install it with: pip install 'scarprune[eval]'.",
        )
    if tokenizer is None:
        raise TextError("Tasks are texts, and this model has no tokenizer.")
    from scarprune.evaluate.harness import Harness  # imports lm_eval

    wanted = asking.by_fewshot()
    every = [name for names in wanted.values() for name in names]
    local, known = [Path(n) for n in every if is_local(n)], [n for n in every if not is_local(n)]
    if not trust_remote_code:
        for path in local:
            refuse_code(path)
    harness = Harness(model, tokenizer, [path for path in local if path.is_dir()], bool(known), batch, bos)
    _refuse_unknown(known, harness.names)
    found: dict[str, TaskResult] = {}
    for shots, names in wanted.items():
        asked = [task for name in names for task in harness.tasks_in(name)]
        found |= results_of(harness.run(asked, shots, asking.limit))
    return found


def _refuse_unknown(names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            raise TextError(
                f"lm_eval knows no task {name!r}.",
                hint=f"Did you mean {' or '.join(close)}?" if close else "`lm-eval ls tasks` lists them.",
            )


def results_of(raw: Mapping[str, Any]) -> dict[str, TaskResult]:
    """lm_eval's result (of ``evaluate``, with samples) by task and group, in its order."""
    groups: Mapping[str, Sequence[str]] = raw.get("group_subtasks") or {}
    parent = {child: group for group, children in groups.items() for child in children}
    found = {}
    for name, numbers in raw["results"].items():
        items = [item for leaf in _leaves(name, groups) for item in raw["samples"].get(leaf, [])]
        metrics = {
            key.removesuffix(",none"): _metric(numbers, key, items)
            for key, value in numbers.items()
            if "," in key and "_stderr," not in key and isinstance(value, int | float)
        }
        version = raw["versions"].get(name)
        if metrics:
            found[name] = TaskResult(
                n=int(numbers["sample_len"]),
                num_fewshot=raw["n-shot"].get(name),
                version=version if isinstance(version, int | float) else None,
                part_of=parent.get(name),
                metrics=metrics,
            )
    return found


def _leaves(name: str, groups: Mapping[str, Sequence[str]]) -> list[str]:
    if name not in groups:
        return [name]
    return [leaf for child in groups[name] for leaf in _leaves(child, groups)]


def _metric(numbers: Mapping[str, Any], key: str, items: Sequence[Mapping[str, Any]]) -> Metric:
    name, kind = key.split(",", 1)
    value, error = _finite(numbers[key]), _finite(numbers.get(f"{name}_stderr,{kind}"))
    each = [item.get(name) for item in items if item.get("filter") == kind]
    if value is None or not each or not all(isinstance(number, int | float) for number in each):
        return Metric(value, error)
    scores = np.array(each, dtype=np.float64)
    if not math.isclose(float(scores.mean()), value, rel_tol=1e-9, abs_tol=1e-12):
        return Metric(value, error)  # aggregated otherwise than by a mean
    return Metric(value, error, scores)


def _finite(number: Any) -> float | None:
    return float(number) if isinstance(number, int | float) and math.isfinite(number) else None
