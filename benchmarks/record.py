"""Records of benchmark runs: one JSON each, with what it was measured on."""

import datetime
import json
import platform
import subprocess
from pathlib import Path

import torch

from scarprune.runtime.provenance import versions

RECORDS = Path(__file__).parent / "records"


def device_name() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else processor()


def processor() -> str:
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = model[0].split(":", 1)[1].strip() if model else platform.processor()
    return f"{name}, {torch.get_num_threads()} threads"


def driver() -> str | None:
    if not torch.cuda.is_available():
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0].strip()


def write_record(
    name: str,
    what: str,
    *,
    tokens_per_second: float | None = None,
    share_of_ceiling: float | None = None,
    peak_gib: float | None = None,
    folder: Path = RECORDS,
    **details: object,
) -> Path:
    record = {
        "what": what,
        "device": device_name(),
        "driver": driver(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "processor": processor(),
        "tokens_per_second": tokens_per_second,
        "share_of_ceiling": share_of_ceiling,
        "peak_gib": peak_gib,
        "versions": {"python": platform.python_version(), **versions()},
        "date": datetime.date.today().isoformat(),
        **details,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    return path
