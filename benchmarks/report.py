"""How large the page of an 8B-sized profile is, and how long findings and page take.

    python benchmarks/report.py [--sites 32] [--width 14336] [--out FOLDER]

The numbers in the profile are random; findings are those without the model.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from record import RECORDS, write_record
from scarprune.artifacts import write_json
from scarprune.findings.analyze import analyze
from scarprune.report.page import write_page
from scores import random_profile

LIMIT_BYTES = 6e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sites", type=int, default=32)
    parser.add_argument("--width", type=int, default=14336)
    parser.add_argument("--out", type=Path, default=RECORDS)
    options = parser.parse_args()
    profile = random_profile(options.sites, options.width)
    began = time.perf_counter()
    found = analyze(profile)
    analyzed = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder) / "findings.json", "findings", found)
        page = write_page(Path(folder), Path(folder) / "report.html")
    drawn = time.perf_counter()
    size = f"{options.sites} sites x {options.width} channels"
    verdict = "" if page["bytes"] < LIMIT_BYTES else "  TOO LARGE"
    print(f"{size}: findings {analyzed - began:.1f} s, page {drawn - analyzed:.1f} s,", end=" ")
    print(f"{page['bytes'] / 1e6:.2f} MB with {len(page['figures'])} figures{verdict}")
    write_record(
        "report_cpu_8b",
        f"findings and their page from a profile of {size}, without the model",
        folder=options.out,
        load_average=os.getloadavg()[0],  # others on the machine slow both
        findings_seconds=analyzed - began,
        page_seconds=drawn - analyzed,
        page_bytes=page["bytes"],
        figures=page["figures"],
    )


if __name__ == "__main__":
    main()
