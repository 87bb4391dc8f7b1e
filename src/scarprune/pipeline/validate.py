"""From a model, its profile and another text to a file of probes: what ``validate`` does."""

from pathlib import Path
from typing import Any

from scarprune.artifacts import partial_path, refuse_existing, write_json
from scarprune.findings.probes.validate import validate as probe
from scarprune.findings.probes.verdict import CRITERION
from scarprune.models.fingerprint import fingerprint_model
from scarprune.pipeline.inputs import Loading, Reading, judged
from scarprune.pipeline.parts import keeper
from scarprune.pipeline.texts import as_read, read_again, say_overlap
from scarprune.profile.sums import load_profile
from scarprune.runtime.progress import remark

VALIDATION = "validation.json"


def validate(
    source: str,
    profile: Path,
    out: Path | None,
    *,
    text: str = "demo",
    loading: Loading = Loading(),
    reading: Reading = Reading(),
    blocks: int = 16,
    channels: int = 200,
    pairs: int = 40,
    exhaustive_sites: int = 0,
    resume: bool = False,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Probe the model ``source`` on ``text``; written to ``out``/validation.json where a folder is given.

    Finished parts lie in ``validation.json.partial`` until all are there; with ``resume`` they are not
    measured again.
    """
    path = None if out is None else out / VALIDATION
    if path is not None:
        refuse_existing(path, overwrite)
    remark(f"Fixed beforehand: {CRITERION}")
    measured = load_profile(profile)
    model, tokenizer = loading.load(source)
    read = reading.blocks(judged(text), tokenizer, blocks)
    entries = measured.header["text"]
    say_overlap(read_again(entries, tokenizer, as_read(entries, reading)), read)
    identity = {
        "weights": fingerprint_model(model),
        "profile": [entry.get("fingerprint") for entry in entries],
        "text": read.fingerprint,
        "numbers": [channels, pairs, exhaustive_sites, reading.seed],
    }
    found = probe(
        model,
        measured,
        read,
        channels=channels,
        pairs_wanted=pairs,
        exhaustive_sites=exhaustive_sites,
        seed=reading.seed,
        keep=None if path is None else keeper(partial_path(path), "validation-parts", identity, resume),
    )
    if path is not None:
        write_json(path, "validation", found, overwrite=overwrite)
        partial_path(path).unlink(missing_ok=True)
    return found
