"""lm_eval around a model that is already in memory; importing this file needs lm_eval."""

import contextlib
import copy
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lm_eval.defaults import DEFAULT_OTHER_SEED
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from scarprune.errors import MemoryBudgetError, ScarpruneError, TextError, one_line
from scarprune.evaluate.batches import tokens_at_once
from scarprune.evaluate.task_files import is_local
from scarprune.models.context import context_length, vocabulary_size
from scarprune.models.quiet import quiet
from scarprune.runtime.memory import available_bytes, is_out_of_memory
from scarprune.runtime.progress import is_drawn

_SHARE_OF_FREE = 0.25


class Harness:
    """A model and the tasks that can be run on it."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        folders: Sequence[Path],
        built_in: bool,
        batch: int | Literal["auto"],
        bos: bool | None,
    ) -> None:
        with _hushed():  # reading the built-in task files takes seconds, so only where one is asked for
            self._manager = TaskManager(include_path=list(folders), include_defaults=built_in)
            self._lm = _Loaded(model, tokenizer, batch, bos)

    @property
    def names(self) -> list[str]:
        """Tasks, groups and tags that are known."""
        known: list[str] = self._manager.all_tasks
        return known

    def tasks_in(self, name: str) -> list[str]:
        """Tasks and groups of a folder, where ``name`` is one, those in a group left to it; else ``name``."""
        folder = Path(name).resolve()
        if not is_local(name) or not folder.is_dir():
            return [name]
        inside = {
            task: entry
            for task, entry in self._manager.task_index.items()
            if entry.yaml_path is not None and Path(entry.yaml_path).resolve().is_relative_to(folder)
        }
        if not inside:
            raise TextError(f"{name} holds no task file that lm_eval can read.")
        grouped = {member for entry in inside.values() for member in _members(entry.cfg or {})}
        return [task for task, entry in inside.items() if not grouped & {task, *entry.tags}]

    def run(self, tasks: list[str], num_fewshot: int | None, limit: int | None) -> dict[str, Any]:
        """lm_eval's result of ``tasks``, with every item's.

        Raises:
            TextError: the tasks' files or data cannot be had or do not fit together.
            MemoryBudgetError: the batch does not fit.
        """
        try:
            with _hushed():
                loaded = self._manager.load(tasks)
                for task in loaded["tasks"].values():
                    _set_fewshot(task, num_fewshot)
                found: dict[str, Any] = evaluate(self._lm, loaded, limit=limit, log_samples=True)
                return found
        except ScarpruneError:
            raise
        except Exception as error:  # task files are programs: anything can go wrong in one
            if is_out_of_memory(error):
                raise MemoryBudgetError(
                    "A batch of the tasks does not fit.", hint="Use a smaller --batch or --dtype."
                ) from error
            reason = one_line(error)[:300]
            raise TextError(
                f"lm_eval could not run {', '.join(tasks)}: {type(error).__name__}: {reason.rstrip('.')}.",
                hint="The data of its tasks come from the Hugging Face hub or its cache; "
                "a local task file names local data (dataset_path: json, dataset_kwargs.data_files).",
            ) from error


def _members(config: Mapping[str, Any]) -> Iterator[str]:
    """The tasks, groups and tags that a group's file lists."""
    listed = config.get("task") if "group" in config else None
    for member in listed if isinstance(listed, list) else []:
        yield str(member.get("task") or member.get("group")) if isinstance(member, dict) else str(member)


def _set_fewshot(task: Any, number: int | None) -> None:
    """As lm_eval's command line does, with its seed: a task that says 0 itself stays without examples."""
    own = task.get_config("num_fewshot")
    if own is None or (number is not None and own != 0):
        task.set_config(key="num_fewshot", value=number or 0)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)


class _Loaded(HFLM):  # type: ignore[misc]
    """lm_eval's own model class, with our batch size and float32 log-probabilities.

    By itself it rounds them to the model's dtype, which in bfloat16 leaves two to three digits.
    """

    def __init__(self, model: Any, tokenizer: Any, batch: int | Literal["auto"], bos: bool | None) -> None:
        super().__init__(
            pretrained=model,
            tokenizer=copy.deepcopy(tokenizer),  # it may be given a token for padding
            batch_size=batch,
            max_length=context_length(model.config),
            softmax_dtype="float32",
            add_bos_token=bos,
        )

    def _detect_batch_size(self, requests: Sequence[Any] | None = None, pos: int = 0) -> int:
        """Sequences at once, from the longest, where lm_eval would run batches of 64 until one fits."""
        longest = self.max_length
        if requests:
            _, context, continuation = requests[pos]
            longest = min(longest, len(context) + len(continuation))
        weight = next(self.model.parameters())
        logits = vocabulary_size(self.model) * (weight.element_size() + 4)  # and their float32 logarithms
        tokens = min(
            tokens_at_once(self.model, self.device),
            int(available_bytes(self.device) * _SHARE_OF_FREE / logits),
        )
        return max(1, tokens // int(longest))


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """lm_eval's bars only where ours would be drawn, and nothing of it on stdout."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.ExitStack() as stack:
            if not is_drawn():
                stack.enter_context(quiet())
            yield
    finally:
        logger.setLevel(level)
