"""The artifacts that a report is made of: whichever of them lie in a folder."""

from pathlib import Path
from typing import Any, get_args

from scarprune.artifacts import read_json
from scarprune.errors import ArtifactError
from scarprune.report.figure import Kind


def read_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """Kind -> document, of those JSON files that ``folder`` holds.

    Raises:
        ArtifactError: none is there, or one is damaged or of another kind.
    """
    kinds = get_args(Kind)
    found = {
        kind: read_json(folder / f"{kind}.json", kind) for kind in kinds if (folder / f"{kind}.json").exists()
    }
    if not found:
        names = ", ".join(f"{kind}.json" for kind in kinds)
        raise ArtifactError(
            f"{folder} holds nothing to report on: none of {names}.",
            hint="`scarprune analyze PROFILE --out DIR` writes findings.",
        )
    return found
