"""Where a model's files are: a folder, a GGUF file, the built-in model, or the Hugging Face hub."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scarprune.demo import model_folder
from scarprune.errors import ArtifactError, one_line
from scarprune.models.checkpoint import ADAPTER_WEIGHTS, INDEX, WEIGHTS, read_object

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "tokenizer*", "LICENSE*", "README.md")
_CODE = ("*.py",)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a model was loaded from.

    Attributes:
        source: as the user named it.
        path: the folder of its files, or the GGUF file.
    """

    source: str
    path: Path

    @property
    def gguf(self) -> bool:
        """Whether the weights come from a GGUF file."""
        return self.path.suffix.lower() == ".gguf"


_ORIGIN = "_scarprune_origin"


def origin_of(model: Any) -> Origin | None:
    """What ``load_model`` loaded ``model`` from; None for a model that came otherwise."""
    return getattr(model, _ORIGIN, None)


def carry_origin(model: Any, origin: Origin) -> None:
    """Remember on ``model`` what it was loaded from."""
    setattr(model, _ORIGIN, origin)


def locate(
    source: str | Path, revision: str | None = None, *, code: bool = False, weights: bool = True
) -> Origin:
    """Find the files of ``source`` on this machine, downloading them where it is a hub id.

    Args:
        source: a folder, a ``.gguf`` file, ``demo``, or a hub id.
        revision: branch, tag or commit on the hub.
        code: whether to download Python files as well.
        weights: whether to download more than the small files, as the config is.

    Raises:
        ArtifactError: nothing there, or the hub does not hand it out.
    """
    text = str(source)
    path = Path(text).expanduser()
    if text == "demo":
        return Origin(text, model_folder())
    if path.suffix.lower() == ".gguf":
        if not path.is_file():
            raise ArtifactError(f"There is no file {path}.")
        return Origin(text, path)
    if path.exists():
        return Origin(text, path)
    if isinstance(source, Path) or not _HUB_ID.fullmatch(text) or text.startswith("."):
        raise ArtifactError(f"There is no folder {path}.")
    return Origin(text, _download(text, revision, code, weights))


def _download(repository: str, revision: str | None, code: bool, weights: bool) -> Path:
    """The snapshot's folder: small files first, then the weights that they name."""
    folder = _snapshot(repository, revision, [*_SMALL_FILES, *(_CODE if code else ())])
    if not weights:
        return folder
    if (folder / INDEX).is_file():
        names = sorted(set(map(str, read_object(folder / INDEX).get("weight_map", {}).values())))
    else:
        names = [WEIGHTS, ADAPTER_WEIGHTS]
    return _snapshot(repository, revision, names)


def _snapshot(repository: str, revision: str | None, patterns: Sequence[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        found = snapshot_download(
            repository, revision=revision, allow_patterns=list(patterns), ignore_patterns=["*/*"]
        )
    except GatedRepoError as error:
        raise ArtifactError(
            f"The hub hands out {repository} only to those who accepted its terms.",
            hint=f"Accept them at https://huggingface.co/{repository} and log in: hf auth login.",
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ArtifactError(
            f"There is no folder {repository}, and the hub knows no model of that name.",
            hint="A private one needs a login: hf auth login.",
        ) from error
    except RevisionNotFoundError as error:
        raise ArtifactError(f"{repository} has no revision {revision!r} on the hub.") from error
    except (LocalEntryNotFoundError, ConnectionError) as error:
        raise ArtifactError(
            f"There is no folder {repository}, and the hub cannot be reached for a model of that name.",
            hint="Check the name and the connection, or download it elsewhere and pass its folder.",
        ) from error
    except Exception as error:  # of the disk, or of the hub's HTTP library, another one by release
        raise ArtifactError(
            f"The download of {repository} broke off: {one_line(error).rstrip('.')}.",
            hint="Try again; files that are there already stay.",
        ) from error
    return Path(found)
