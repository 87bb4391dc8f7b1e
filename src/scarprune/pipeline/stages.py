"""Single stages from files to files: what ``profile``, ``eval`` and ``cut`` do."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scarprune.artifacts import partial_path, refuse_existing
from scarprune.errors import ArgumentError
from scarprune.evaluate.masks import masked
from scarprune.evaluate.perplexity import Perplexity, excess, perplexity
from scarprune.evaluate.tasks import Asking, TaskResults, run_tasks
from scarprune.models.find import find_sites
from scarprune.models.fingerprint import fingerprint_model
from scarprune.models.forward import device_of
from scarprune.pipeline.inputs import Batch, Loading, Measuring, Reading, Spreading, judged
from scarprune.pipeline.room import load_within
from scarprune.pipeline.texts import as_read, read_again, say_overlap
from scarprune.plan.plan import Plan, load_plan
from scarprune.profile.compiling import Compiled
from scarprune.profile.estimate import expected_seconds
from scarprune.profile.run import profile_model
from scarprune.profile.state import drop_state
from scarprune.profile.sums import Profile
from scarprune.runtime.device import resolve_device
from scarprune.runtime.memory import bounded
from scarprune.runtime.progress import duration, remark
from scarprune.runtime.provenance import package_version, provenance
from scarprune.runtime.ranks import ALONE, Ranks, find_ranks, joined
from scarprune.scores.core import profile_core
from scarprune.stats.concentration import share
from scarprune.text.blocks import DEFAULT_COUNT, Blocks

_WORTH_SAYING_S = 10.0
BETTER_TEXT = "Measuring on the built-in text; text like what the model will be used for is better (--text)."


def profile(
    source: str,
    text: str | None,
    out: Path,
    *,
    loading: Loading = Loading(),
    reading: Reading = Reading(),
    measuring: Measuring = Measuring(),
    spreading: Spreading = Spreading(),
    resume: bool = False,
    overwrite: bool = False,
) -> Profile | None:
    """Measure a model on ``text`` (None: the shipped calibration text) and write the profile to ``out``.

    The state of an unfinished run lies in ``OUT.partial``; with ``resume`` the run goes on from it. Under
    torchrun the processes divide the blocks between them, and ``spreading.tp`` of them hold one copy of the
    model.

    Returns:
        What was measured; None in processes that do not write.
    """
    refuse_existing(out, overwrite)
    state = partial_path(out)
    with joined(loading.device) as device, bounded(resolve_device(device), measuring.bound):
        ranks = spreading.ranks()
        if ranks.first and state.exists() and not resume:
            remark(
                f"Beginning again; {state} of an interrupted run is dropped (--resume would go on from it)."
            )
            drop_state(state)
        ranks.wait()
        if text is None and source != "demo":
            remark(BETTER_TEXT)
        here = replace(loading, device=device)
        model, tokenizer = load_within(here, source, measuring, reading.length, spreading, ranks)
        blocks = reading.blocks(text or "demo", tokenizer, count_of(measuring.blocks))
        measured = measure(model, blocks, measuring, seed=reading.seed, state=state, ranks=ranks)
        if not ranks.first:
            return None
    measured.save(out, overwrite=overwrite)
    return measured


def measure(
    model: Any,
    blocks: Blocks,
    measuring: Measuring,
    *,
    seed: int,
    state: Path | None = None,
    ranks: Ranks = ALONE,
) -> Profile:
    """``profile_model`` as ``measuring`` says."""
    return profile_model(
        model,
        blocks,
        batch=measuring.batch,
        compiled=measuring.compiled,
        labels=measuring.labels,
        redundancy=measuring.redundancy,
        extras=measuring.extras,
        resume=state,
        seed=seed,
        ranks=ranks,
        memory=measuring.memory,
    )


def core_shares(profile: Profile) -> dict[str, float | None]:
    """Per site, the share of the loss proxy that its core holds; None where there is no loss to share."""
    labels = "data" if "data" in profile.labels else "model"
    totals = profile.total("sum_q2", labels=labels)
    cores = profile_core(profile)
    return {site: share(totals[site], cores[site]) for site in totals}


def count_of(blocks: int | None) -> int:
    """A number of blocks to measure on, or the default one where none was asked for."""
    return DEFAULT_COUNT if blocks is None else blocks


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found of one model: on a text, on tasks, or on both.

    Attributes:
        perplexity: on the text; None where there was none.
        tasks: by name; empty where none were asked for.
    """

    perplexity: Perplexity | None
    tasks: TaskResults

    def as_json(self, dense: "Judged | None" = None) -> dict[str, Any]:
        """Keys of an evaluation; ``tasks`` and those of perplexity where they were measured."""
        document = {} if self.perplexity is None else self.perplexity.as_json()
        if self.tasks:
            whole = {} if dense is None else dense.tasks
            document["tasks"] = {name: task.as_json(whole.get(name)) for name, task in self.tasks.items()}
        return document


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Perplexity and tasks of a model; with a plan, of the model without the channels that it removes.

    Attributes:
        result: of the model, masked where there is a plan.
        dense: of the whole model on the same blocks and tasks; None without a plan.
        blocks: what was read; None without a text.
        overlap: share of its 13-grams of tokens that the plan's calibration text holds; None where unknown.
        asking: which tasks; None without any.
        facts: provenance of the JSON.
    """

    result: Judged
    dense: Judged | None
    blocks: Blocks | None
    overlap: float | None
    asking: Asking | None
    facts: dict[str, Any]

    @property
    def excess(self) -> tuple[float, float | None] | None:
        """ln(perplexity masked / dense) in nats with its paired standard error; None without both."""
        if self.dense is None or self.dense.perplexity is None or self.result.perplexity is None:
            return None
        return excess(self.dense.perplexity, self.result.perplexity)

    def as_json(self) -> dict[str, Any]:
        """Keys of an evaluation; with a plan also ``dense``, ``excess_nats``, ``excess_standard_error``."""
        document = {"provenance": self.facts, **self.result.as_json(self.dense)}
        if self.asking is not None:
            document["limit"] = self.asking.limit
        if self.blocks is not None:
            document["text"] = describe(self.blocks)
        if self.dense is not None:
            document["dense"] = self.dense.as_json()
        if self.excess is not None:
            nats, error = self.excess
            document |= {"excess_nats": nats, "excess_standard_error": error, "overlap": self.overlap}
        return document


def evaluate(
    source: str,
    text: str | None,
    *,
    tasks: Asking | None = None,
    plan: Path | None = None,
    loading: Loading = Loading(),
    reading: Reading = Reading(),
    blocks: int | None = None,
    batch: Batch = "auto",
    compiled: Compiled = "auto",
) -> Evaluation | None:
    """Judge a model, whole or under a plan: perplexity on ``text`` (all, or ``blocks``), tasks, or both.

    Under torchrun the processes divide the blocks of the text between them.

    Returns:
        What was found; None in processes that do not speak.
    """
    with joined(loading.device) as device:
        ranks = find_ranks()
        if tasks is not None and ranks.count > 1:
            raise ArgumentError(f"Tasks are judged by one process alone, not by {ranks.count}.")
        loading = replace(loading, device=device)
        found = _evaluate(source, text, tasks, plan, loading, reading, blocks, batch, compiled, ranks)
        return found if ranks.first else None


def _evaluate(
    source: str,
    text: str | None,
    tasks: Asking | None,
    plan: Path | None,
    loading: Loading,
    reading: Reading,
    blocks: int | None,
    batch: Batch,
    compiled: Compiled,
    ranks: Ranks,
) -> Evaluation:
    if text is None and tasks is None:
        raise ArgumentError("There is nothing to judge on: neither a text nor tasks.")
    chosen: Plan | None = None if plan is None else load_plan(plan)
    model, tokenizer = loading.load(source)
    facts = {**describe_model(model, source), "seed": reading.seed}
    if chosen is not None:
        chosen.check(find_sites(model), facts["fingerprint"])
        facts["plan"] = str(plan)
    read = None if text is None else reading.blocks(judged(text), tokenizer, blocks)
    if read is not None:
        say_expected(model, read, runs=1 if chosen is None else 2)

    def judge() -> Judged:
        found = None
        if read is not None:
            found = perplexity(model, read, batch=batch, compiled=compiled, ranks=ranks)
        if tasks is None:
            return Judged(found, {})
        trusted = loading.trust_remote_code
        done = run_tasks(model, tokenizer, tasks, batch=batch, bos=reading.bos, trust_remote_code=trusted)
        return Judged(found, done)

    first = judge()
    origin = provenance(**facts)
    if tasks is not None:
        origin["versions"]["lm_eval"] = package_version("lm_eval")
    if chosen is None:
        return Evaluation(first, None, read, None, tasks, origin)
    with masked(model, chosen):
        second = judge()
    measured_on = chosen.provenance.get("text") or []
    if read is None:
        return Evaluation(second, first, None, None, tasks, origin)
    shared = say_overlap(read_again(measured_on, tokenizer, as_read(measured_on, reading)), read)
    return Evaluation(second, first, read, shared, tasks, origin)


def say_expected(model: Any, blocks: Blocks, runs: int) -> None:
    """Say how long reading ``blocks`` will take on a CPU, where that is worth knowing."""
    if device_of(model).type != "cpu":
        return
    seconds = expected_seconds(model, 0.5 * runs * int(blocks.lengths.sum()))  # forward alone
    if seconds > _WORTH_SAYING_S:
        what = f"Evaluating {len(blocks)} blocks, {blocks.targets:,} tokens"
        remark(f"{what}: about {duration(seconds)} on this CPU.")


def describe(blocks: Blocks) -> dict[str, Any]:
    """What a JSON result says of the text it was measured on."""
    return {
        "source": blocks.source,
        "protocol": blocks.protocol,
        "blocks": len(blocks),
        "length": int(blocks.lengths.max(initial=0)),
        "seed": blocks.seed,
        "bos": blocks.bos,
        "fingerprint": blocks.fingerprint,
    }


def describe_model(model: Any, source: str) -> dict[str, Any]:
    """What a JSON result says of the model it was measured on."""
    return {
        "model": source,
        "fingerprint": fingerprint_model(model),
        "device": str(device_of(model)),
        "dtype": str(model.dtype).removeprefix("torch."),
    }
