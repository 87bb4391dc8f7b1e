"""Step by step, each written when it is whole: from a model to ``reproduction.json`` and its page."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from scarprune.artifacts import partial_path, read_json, write_json
from scarprune.errors import ArgumentError, ScarpruneError
from scarprune.evaluate.ablate import Ablator
from scarprune.evaluate.perplexity import Perplexity, perplexity
from scarprune.findings.analyze import analyze
from scarprune.findings.probes.validate import validate
from scarprune.findings.probes.verdict import CRITERION
from scarprune.models.fingerprint import fingerprint_model
from scarprune.paper.claims import claims
from scarprune.paper.pruning import ProtocolName, Ranking, our_rankings, prune_and_judge
from scarprune.paper.table import table
from scarprune.paper.texts import paper_blocks
from scarprune.pipeline.analyze import CORE_TABLE, FINDINGS, write_core_table
from scarprune.pipeline.inputs import Loading, Measuring
from scarprune.pipeline.parts import keeper
from scarprune.pipeline.reproduce import paper
from scarprune.pipeline.reproduce.ledger import Ledger
from scarprune.pipeline.reproduce.programme import STEPS, Programme, programme
from scarprune.pipeline.stages import describe, measure
from scarprune.pipeline.texts import say_overlap
from scarprune.pipeline.validate import VALIDATION
from scarprune.profile.sums import EXTRAS, Profile, load_profile
from scarprune.report.page import write_page
from scarprune.runtime.progress import remark
from scarprune.runtime.provenance import provenance
from scarprune.text.blocks import Blocks

PROFILE, PRUNING, PAPER_PRUNING = "profile.safetensors", "pruning.json", "paper-pruning.json"
REPRODUCTION, PAGE = "reproduction.json", "report.html"
_NEEDS = {"findings": "profile", "probes": "profile", "pruning": "profile", "paper-pruning": "paper"}


def reproduce(
    what: str | Programme,
    out: str | Path,
    *,
    loading: Loading = Loading(),
    steps: Sequence[str] = STEPS,
    resume: bool = False,
    overwrite: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Run ``steps`` of the programme; their artifacts and ``reproduction.json`` become the folder ``out``.

    It grows in ``OUT.partial``; a finished step is not done again with ``resume``. The model is loaded once,
    and only where a step needs it.

    Args:
        what: a preset (``demo``, ``llama-3.1-8b`` ...), a model, or the whole programme.
        out: the folder to write.
        steps: some of ``STEPS``, in that order.
        options: of ``programme``, where ``what`` is a name: ``text``, ``evaluation``, ``blocks`` ...

    Raises:
        ArtifactError: ``out`` is there already, or with ``resume`` of another model or other options.
        ArgumentError: a step without what it builds on.
    """
    made = programme(what, dtype=loading.dtype, **options) if isinstance(what, str) else what
    ledger = Ledger(Path(out), made.as_json(), resume=resume, overwrite=overwrite)
    for step in steps:
        if (needed := _NEEDS.get(step)) and needed not in steps and not ledger.done(needed):
            raise ArgumentError(f"The step {step} needs the step {needed}.", hint=f"Add {needed} to --steps.")
    work = _Work(made, ledger, loading)
    for step in STEPS[:-1]:
        if step in steps:
            ledger.run(step, getattr(work, step.replace("-", "_")))
    document = work.document()
    if "report" in steps:
        document["missing"] |= work.report(document)
    else:
        document["missing"]["report"] = "left out as asked"
        write_json(ledger.folder / REPRODUCTION, "reproduction", document, overwrite=True)
    ledger.finish()
    return document


class _Work:
    """The steps, and what several of them need, made when first asked for."""

    def __init__(self, programme: Programme, ledger: Ledger, loading: Loading) -> None:
        self.programme, self.ledger, self.folder = programme, ledger, ledger.folder
        self._loading = loading

    @cached_property
    def loaded(self) -> tuple[Any, Any | None]:
        """The model and its tokenizer, once and checked."""
        model, tokenizer = self._loading.load(self.programme.model)
        self.ledger.check_weights(fingerprint_model(model))
        return model, tokenizer

    @cached_property
    def calibration(self) -> Blocks:
        """Our blocks to measure on."""
        programme = self.programme
        return programme.reading.blocks(programme.text, self.loaded[1], programme.amounts.blocks)

    @cached_property
    def evaluation(self) -> Blocks:
        """Our blocks to judge on."""
        programme = self.programme
        return programme.reading.blocks(
            programme.evaluation, self.loaded[1], programme.amounts.evaluation_blocks
        )

    @cached_property
    def paper_evaluation(self) -> Blocks:
        """The paper's blocks to judge on."""
        reading = self.programme.paper.within(self.loaded[0])
        return paper_blocks(
            self.programme.evaluation,
            self.loaded[1],
            reading.block,
            reading.blocks,
            self.programme.reading.field,
        )

    @cached_property
    def ours(self) -> Profile:
        """Our profile, from its file."""
        return load_profile(self.folder / PROFILE)

    # -- steps -------------------------------------------------------------------------------------

    def profile(self) -> None:
        """Our profile: all that any score needs."""
        measured = measure(
            self.loaded[0],
            self.calibration,
            Measuring(self.programme.amounts.blocks, labels="both", extras=tuple(EXTRAS)),
            seed=self.programme.reading.seed,
            state=partial_path(self.folder / PROFILE),
        )
        measured.save(self.folder / PROFILE, overwrite=True)

    def findings(self) -> None:
        """What ``analyze --model`` writes."""
        amounts = self.programme.amounts
        found = analyze(
            self.ours,
            model=self.loaded[0],
            tokenizer=self.loaded[1],
            blocks=self.calibration,
            paths=[PROFILE],
            seed=self.programme.reading.seed,
            flips=amounts.flips,
            random_cores=amounts.random_cores,
        )
        write_json(self.folder / FINDINGS, "findings", found, overwrite=True)
        write_core_table(self.folder / CORE_TABLE, found, overwrite=True)

    def probes(self) -> None:
        """What ``validate`` writes."""
        amounts, programme = self.programme.amounts, self.programme
        remark(f"Fixed beforehand: {CRITERION}")
        blocks = programme.reading.blocks(programme.evaluation, self.loaded[1], amounts.probe_blocks)
        parts = partial_path(self.folder / VALIDATION)
        found = validate(
            self.loaded[0],
            self.ours,
            blocks,
            channels=amounts.channels,
            pairs_wanted=amounts.pairs,
            seed=programme.reading.seed,
            keep=keeper(parts, "validation-parts", self._identity(blocks), self.ledger.resume),
        )
        write_json(self.folder / VALIDATION, "validation", found, overwrite=True)
        parts.unlink(missing_ok=True)

    def pruning(self) -> None:
        """Every score of the registry, under our protocol."""
        rankings, missing = our_rankings(self.ours, self.programme.reading.seed)
        self._prune(PRUNING, self.ours, rankings, missing, self.evaluation, "ours")

    def paper(self) -> None:
        """The paper's protocol, measured."""
        ours = self.ours if (self.folder / PROFILE).exists() else None
        paper.measure_paper(self.folder, self.programme, *self.loaded, ours)

    def paper_pruning(self) -> None:
        """The paper's scores and baselines, under its protocol."""
        profile, rankings = paper.paper_rankings(self.folder)
        missing = read_json(self.folder / paper.PAPER, "paper-protocol")["missing"]
        self._prune(PAPER_PRUNING, profile, rankings, missing, self.paper_evaluation, "paper")

    def _prune(
        self,
        name: str,
        profile: Profile,
        rankings: Sequence[Ranking],
        missing: dict[str, str],
        blocks: Blocks,
        protocol: ProtocolName,
    ) -> None:
        parts, model = partial_path(self.folder / name), self.loaded[0]
        keep = keeper(parts, "pruning-parts", self._identity(blocks), self.ledger.resume)
        dense = Perplexity(**_unpacked(keep("dense", lambda: _packed(perplexity(model, blocks)))))
        sparsities, rows = self.programme.sparsities, []
        ablator = Ablator(model, blocks)
        for place, ranking in enumerate(rankings, start=1):

            def judge(ranking: Ranking = ranking, place: int = place) -> list[dict[str, Any]]:
                remark(f"  {ranking.name} ({place} of {len(rankings)})")
                return prune_and_judge(ablator, profile, ranking, sparsities, dense, protocol)

            rows += keep(ranking.name, judge)
        document = {
            "provenance": provenance(seed=self.programme.reading.seed, fingerprint=profile.fingerprint),
            "model": self.programme.model,
            "protocol": protocol,
            "text": describe(blocks),
            "targets": dense.block_targets.tolist(),
            "overlap": say_overlap(self.calibration, blocks) if protocol == "ours" else None,
            "dense": dense.as_json(),
            "pruning": rows,
            "missing": missing,
        }
        write_json(self.folder / name, "pruning", document, overwrite=True)
        parts.unlink(missing_ok=True)

    def _identity(self, blocks: Blocks) -> dict[str, Any]:
        return {"weights": fingerprint_model(self.loaded[0]), "text": blocks.fingerprint}

    # -- what they come to -------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """``reproduction.json`` from whichever steps are done."""
        findings, validation = self._read(FINDINGS, "findings"), self._read(VALIDATION, "validation")
        measured = self._read(paper.PAPER, "paper-protocol")
        pruned = {
            document["protocol"]: document
            for name in (PRUNING, PAPER_PRUNING)
            if (document := self._read(name, "pruning"))
        }
        rows = [row for document in pruned.values() for row in document["pruning"]]
        ours: dict[str, float | None] = {}
        if findings:
            ratio = ((findings["halo"] or {}).get("redundancy") or {}).get("summary", {}).get("ratio", {})
            ours = paper.quantities(findings["concentration"], findings["explanations"], ratio.get("median"))
        theirs = dict(measured["quantities"]) if measured else {}
        for protocol, quantities in (("ours", ours), ("paper", theirs)):
            if protocol in pruned:
                quantities["dense perplexity"] = pruned[protocol]["dense"]["perplexity"]
        targets = {protocol: document["targets"] for protocol, document in pruned.items()}
        seconds = self.ledger.seconds
        return {
            "provenance": provenance(seed=self.programme.reading.seed),
            "model": self.programme.model,
            "preset": self.programme.preset.name,
            "options": self.programme.as_json(),
            "steps": [{"name": s, "seconds": seconds.get(s)} for s in STEPS],
            "texts": {p: d["text"] | {"overlap": d["overlap"]} for p, d in pruned.items()},
            "pruning": [{k: v for k, v in row.items() if k != "block_excess_nats"} for row in rows],
            "table": table(self.programme.preset.published, theirs, ours, rows),
            "claims": claims(findings, validation, rows, targets),
            "differences": measured["differences"] if measured else None,
            "missing": self._missing(pruned),
        }

    def report(self, document: dict[str, Any]) -> dict[str, str]:
        """Write ``reproduction.json`` and the page; where it cannot be drawn, the reason instead."""
        write_json(self.folder / REPRODUCTION, "reproduction", document, overwrite=True)
        try:
            write_page(self.folder, self.folder / PAGE, overwrite=True)
        except ScarpruneError as error:
            remark(f"No page: {error}")
            again = {**document, "missing": document["missing"] | {"report": str(error)}}
            write_json(self.folder / REPRODUCTION, "reproduction", again, overwrite=True)
            return {"report": str(error)}
        return {}

    def _missing(self, pruned: dict[str, Any]) -> dict[str, str]:
        missing = {
            f"{protocol}: {name}": reason
            for protocol, document in pruned.items()
            for name, reason in document["missing"].items()
        }
        for step in STEPS[:-1]:
            if not self.ledger.done(step):
                missing[step.replace("-", "_")] = "the step was not run"
        return missing

    def _read(self, name: str, kind: str) -> dict[str, Any] | None:
        path = self.folder / name
        return read_json(path, kind) if path.exists() else None


def _packed(judged: Perplexity) -> dict[str, Any]:
    return {
        "block_nats": judged.block_nats.tolist(),
        "block_targets": judged.block_targets.tolist(),
        "bytes": judged.bytes,
        "protocol": judged.protocol,
        "text": judged.text,
    }


def _unpacked(kept: dict[str, Any]) -> dict[str, Any]:
    arrays = {key: np.asarray(kept[key]) for key in ("block_nats", "block_targets")}
    return {**kept, **arrays}
