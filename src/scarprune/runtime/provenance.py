"""Where a result came from: command, versions, device, dtype, seeds, fingerprints, date."""

import datetime
import platform
import sys
from importlib import metadata
from typing import Any

_PACKAGES = ("scarprune", "torch", "transformers", "numpy", "safetensors")


def provenance(**facts: Any) -> dict[str, Any]:
    """What every artifact says of its origin, with ``facts`` (device, dtype, seed ...) of the caller."""
    return {
        "command": command(),
        "versions": {"python": platform.python_version(), **versions()},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **facts,
    }


def versions() -> dict[str, str]:
    """Installed versions of what a number may depend on."""
    return {package: package_version(package) for package in _PACKAGES}


def package_version(package: str) -> str:
    """The installed version of ``package``; ``unknown`` where it was never installed (a source tree)."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def command() -> str | None:
    """The command line, where scarprune's own was used; None from Python."""
    program = sys.argv[0].replace("\\", "/").rsplit("/", 1)[-1] if sys.argv and sys.argv[0] else ""
    if program in {"scarprune", "__main__.py"}:
        return " ".join(["scarprune", *sys.argv[1:]])
    return None
