"""From profiles to a folder of findings: what ``analyze`` does."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scarprune.artifacts import atomic_file, partial_path, refuse_existing, write_json
from scarprune.errors import TextError
from scarprune.findings.analyze import analyze as analyze_profiles
from scarprune.pipeline.inputs import Batch, Loading, Reading
from scarprune.pipeline.texts import as_read, read_again
from scarprune.profile.sums import Profile, load_profile
from scarprune.runtime.progress import remark
from scarprune.text.blocks import Blocks

FINDINGS, CORE_TABLE = "findings.json", "core.csv"
_COLUMNS = ("site", "layer", "channel", "rank", "loss_proxy", "n_eff", "activation_rank", "conn")


def analyze(
    profiles: Sequence[Path],
    out: Path | None,
    *,
    model: str | None = None,
    text: str | None = None,
    loading: Loading = Loading(),
    reading: Reading = Reading(),
    blocks: int | None = None,
    batch: Batch = "auto",
    flips: int = 200,
    random_cores: int = 20,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Findings of the first of ``profiles``, beside the others; written to the folder ``out`` if given.

    With ``model``, one more pass over the profile's own text, or over ``text`` read in the same way, adds
    what needs weights and tokens; its state lies in ``findings.json.partial`` until the pass has ended, and
    with ``resume`` the pass goes on from there.

    Raises:
        ArtifactError: an output is there already, or the profiles are of different models.
        TextError: the profile's own text cannot be read again.
    """
    if out is not None:
        for name in (FINDINGS, CORE_TABLE):
            refuse_existing(out / name, overwrite)
    loaded = [load_profile(path) for path in profiles]
    given: dict[str, Any] = {}
    if model is not None:
        network, tokenizer = loading.load(model)
        read = _text(loaded[0], text, tokenizer, reading, blocks)
        given = {"model": network, "tokenizer": tokenizer, "blocks": read, "batch": batch}
        if out is not None:
            given["resume"] = state = partial_path(out / FINDINGS)
            if state.exists() and not resume:
                remark(f"Beginning again; {state} of an interrupted run is dropped (see --resume).")
                state.unlink()
    findings = analyze_profiles(
        *loaded,
        paths=[str(path) for path in profiles],
        seed=reading.seed,
        flips=flips,
        random_cores=random_cores,
        **given,
    )
    if out is not None:
        write_json(out / FINDINGS, "findings", findings, overwrite=overwrite)
        write_core_table(out / CORE_TABLE, findings, overwrite=overwrite)
    return findings


def write_core_table(path: Path, findings: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """The core of every site as CSV, one channel a row, largest loss proxy first."""
    with atomic_file(path, overwrite=overwrite) as growing, growing.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for site in findings["channels"]["sites"]:
            core = site["core"]
            order = sorted(range(len(core["index"])), key=lambda i: (-core["lp"][i], core["index"][i]))
            for rank, i in enumerate(order, start=1):
                facts = (core[key][i] for key in ("lp", "n_eff", "activation_rank", "overlap"))
                writer.writerow((site["name"], site["layer"], core["index"][i], rank, *facts))


def _text(
    profile: Profile, text: str | None, tokenizer: Any | None, reading: Reading, count: int | None
) -> Blocks:
    """The blocks of ``text`` read as the profile's were, or the very blocks the profile was measured on."""
    entries = profile.header["text"]
    reading = as_read(entries, reading)
    if text is not None:
        return reading.blocks(text, tokenizer, count or int(entries[0]["blocks"]))
    again = read_again(entries, tokenizer, reading)
    if again is None:
        raise TextError(
            "The text that the profile was measured on cannot be read again.",
            hint="Name it, or another, with --text.",
        )
    return again
