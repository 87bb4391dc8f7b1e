"""From checkpoints to a trajectory: what ``trajectory`` does, one checkpoint's weights at a time."""

import gc
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from scarprune.artifacts import partial_path, refuse_existing, write_json
from scarprune.errors import ArgumentError, ArtifactError, one_line
from scarprune.findings.trajectory import Snapshot, snapshot
from scarprune.findings.trajectory import trajectory as trajectory_of
from scarprune.pipeline.inputs import Loading, Measuring, Reading
from scarprune.pipeline.stages import count_of, measure
from scarprune.profile.sums import Profile, load_profile
from scarprune.runtime.progress import remark
from scarprune.runtime.provenance import provenance

TRAJECTORY, PROFILES = "trajectory.json", "profiles"
PRESETS = {"olmo-2-7b": "allenai/OLMo-2-1124-7B"}
_STEP = re.compile(r"(?:step|checkpoint)[-_]?(\d+)", re.IGNORECASE)
_TOKENS = re.compile(r"tokens[-_]?(\d+)([BMT])", re.IGNORECASE)
_UNITS = {"M": 10**6, "B": 10**9, "T": 10**12}
_STAGE = re.compile(r"stage1-step\d+-tokens\d+B")
_WANTED = 10


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One point of a training run: a folder, a hub id with its revision, or the profile of either."""

    source: str
    revision: str | None = None

    @property
    def name(self) -> str:
        """What it is called, in the results and as the file of its profile."""
        said = f"{self.source}@{self.revision}" if self.revision else self.source
        path = Path(said)
        last = path.stem if self.measured else path.name
        return re.sub(r"[^\w.@-]+", "_", last) or "checkpoint"

    @property
    def measured(self) -> bool:
        """Whether it is a profile already."""
        return self.source.endswith(".safetensors")

    @property
    def step(self) -> int | None:
        """Optimizer steps, as its name says."""
        found = _STEP.search(self.name)
        return int(found[1]) if found else None

    @property
    def tokens(self) -> int | None:
        """Training tokens, as its name says."""
        found = _TOKENS.search(self.name)
        return int(found[1]) * _UNITS[found[2].upper()] if found else None


def checkpoints_of(named: Sequence[str]) -> list[Checkpoint]:
    """The checkpoints that the user named, in the order of training where every name tells its step.

    A folder stands for the checkpoints in it, or for the profiles in it.

    Raises:
        ArtifactError: a folder holds neither a model, nor checkpoints, nor profiles.
        ArgumentError: two checkpoints have one name.
    """
    found: list[Checkpoint] = []
    for name in named:
        path = Path(name).expanduser()
        if path.is_dir() and not (path / "config.json").is_file():
            found.extend(Checkpoint(str(inner)) for inner in _inside(path))
        elif "@" in name and not path.exists():
            source, revision = name.rsplit("@", 1)
            found.append(Checkpoint(source, revision))
        else:
            found.append(Checkpoint(name))
    steps = {one: one.step for one in found}
    if all(step is not None for step in steps.values()):
        found.sort(key=lambda one: steps[one] or 0)
    names = [one.name for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ArgumentError(f"Two checkpoints are called {twice[0]}.", hint="Rename one of them.")
    return found


def _inside(folder: Path) -> list[Path]:
    inner = [path for path in sorted(folder.iterdir()) if (path / "config.json").is_file()]
    found = inner or sorted(folder.glob("*.safetensors"))
    if not found:
        raise ArtifactError(f"{folder} holds neither a model, nor folders of checkpoints, nor profiles.")
    return found


def preset_checkpoints(preset: str) -> list[Checkpoint]:
    """Ten revisions of the preset's repository, spread evenly in the logarithm of their tokens.

    Raises:
        ArgumentError: no such preset.
        ArtifactError: the hub cannot be reached, or has no such revisions any more.
    """
    if preset not in PRESETS:
        raise ArgumentError(f"There is no preset {preset!r}; there is {', '.join(PRESETS)}.")
    repository = PRESETS[preset]
    branches = [name for name in _branches(repository) if _STAGE.fullmatch(name)]
    found = [Checkpoint(repository, name) for name in branches]
    found = [one for one in found if one.tokens]
    if not found:
        raise ArtifactError(f"{repository} has no revisions named stage1-step<N>-tokens<M>B.")
    return spread_by_tokens(found, _WANTED)


def spread_by_tokens(found: Sequence[Checkpoint], wanted: int) -> list[Checkpoint]:
    """Up to ``wanted`` checkpoints nearest to even distances in log tokens, first and last among them."""
    ordered = sorted(found, key=lambda one: (one.tokens or 0, one.step or 0))
    logs = np.log([one.tokens or 1 for one in ordered])
    goals = np.linspace(logs[0], logs[-1], min(wanted, len(ordered)))
    nearest = [int(np.abs(logs - goal).argmin()) for goal in goals[:-1]]
    return [ordered[i] for i in sorted({*nearest, len(ordered) - 1})]


def _branches(repository: str) -> list[str]:
    from huggingface_hub import list_repo_refs

    try:
        return [branch.name for branch in list_repo_refs(repository).branches]
    except Exception as error:  # of the hub's or of its HTTP library, which is another one by release
        raise ArtifactError(
            f"The hub cannot be asked for the revisions of {repository}: {one_line(error).rstrip('.')}.",
            hint="Check the connection, or name the checkpoints yourself.",
        ) from error


def trajectory(
    checkpoints: Sequence[Checkpoint],
    out: Path,
    *,
    text: str | None = None,
    loading: Loading = Loading(),
    reading: Reading = Reading(),
    measuring: Measuring = Measuring(redundancy=False),
    free_downloads: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Profile every checkpoint (once: ``OUT/profiles`` keeps them) and write ``OUT/trajectory.json``.

    Raises:
        ArtifactError: the result is there already, checkpoints of different shapes, or a kept profile
            that was measured on another text or in another way.
    """
    refuse_existing(out / TRAJECTORY, overwrite)
    snapshots: list[Snapshot] = []
    for one in checkpoints:
        kept = out / PROFILES / f"{one.name}.safetensors"
        if one.measured:
            profile = load_profile(one.source)
        elif kept.exists():
            profile = load_profile(kept)
            _check_same(profile, kept, text, reading, measuring)
        else:
            profile = _measured(one, kept, text, loading, reading, measuring, free_downloads)
        snapshots.append(snapshot(profile, one.name, one.step, one.tokens))
    model = checkpoints[-1].source if checkpoints else ""
    found = {"provenance": provenance(seed=reading.seed), "model": model, **trajectory_of(snapshots)}
    write_json(out / TRAJECTORY, "trajectory", found, overwrite=overwrite)
    return found


def _measured(
    one: Checkpoint,
    kept: Path,
    text: str | None,
    loading: Loading,
    reading: Reading,
    measuring: Measuring,
    free_downloads: bool,
) -> Profile:
    """The profile of a checkpoint, kept at once; its weights leave memory, and the disk if asked."""
    there = _downloaded(one.source)
    remark(f"Measuring {one.name}.")
    model, tokenizer = replace(loading, revision=one.revision or loading.revision).load(one.source)
    blocks = reading.blocks(text or "demo", tokenizer, count_of(measuring.blocks))
    kept.parent.mkdir(parents=True, exist_ok=True)
    profile = measure(model, blocks, measuring, seed=reading.seed, state=partial_path(kept))
    profile.header["trajectory"] = _asked(text, reading, measuring)
    profile.save(kept)
    del model
    gc.collect()
    if free_downloads:
        _free(one.source, there)
    return profile


def _asked(text: str | None, reading: Reading, measuring: Measuring) -> dict[str, Any]:
    """What must agree for a kept profile to be used again."""
    return {
        "text": text or "demo",
        "blocks": count_of(measuring.blocks),
        "labels": measuring.labels,
        "length": reading.length,
        "seed": reading.seed,
        "protocol": reading.protocol,
        "bos": reading.bos,
        "field": reading.field,
    }


def _check_same(
    profile: Profile, path: Path, text: str | None, reading: Reading, measuring: Measuring
) -> None:
    asked, kept = _asked(text, reading, measuring), profile.header.get("trajectory", {})
    for key, value in asked.items():
        if kept.get(key) != value:
            raise ArtifactError(
                f"{path} was measured with {key} {kept.get(key)!r}, not {value!r}.",
                hint="Choose another --out, or remove it.",
            )


def _downloaded(source: str) -> set[str]:
    """Commits of a hub model that the cache holds."""
    from huggingface_hub import CacheNotFound, scan_cache_dir

    try:
        cache = scan_cache_dir()
    except CacheNotFound:
        return set()
    return {item.commit_hash for repo in cache.repos if repo.repo_id == source for item in repo.revisions}


def _free(source: str, before: set[str]) -> None:
    """Drop what this run downloaded of ``source``: commits that were not in the cache ``before``."""
    from huggingface_hub import scan_cache_dir

    if new := _downloaded(source) - before:
        strategy = scan_cache_dir().delete_revisions(*sorted(new))
        strategy.execute()
        remark(f"Freed {strategy.expected_freed_size_str} of downloads.")
