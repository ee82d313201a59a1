"""The figures of the page: seconds to write it for many rows, its size, seconds to open and to sort it in a browser.

With --picture FILE it takes the README's picture of a record's page instead.

    python -m bench.report_page --rows 2000
    python -m bench.report_page --picture docs/report.png
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench.browser import Browser
from harness.cli import parse
from harness.records import measurement
from harness.records.store import NAME

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "results" / "reference"
RECORD = REFERENCE / "amd-epyc-zen5-2-threads"
_TURNS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.picture:
            take_picture(Path(folder), options.picture)
        else:
            measure(Path(folder), options.rows)


def write(results: Path, page: Path) -> float:
    """Seconds of `harness report --html`, from the start of the process to its end."""
    started = time.perf_counter()
    words = ["-m", "harness", "report", "--results", str(results), "--html", str(page)]
    subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    return time.perf_counter() - started


def measure(folder: Path, count: int) -> None:
    """Prints the figures for the reference record's rows, repeated under other names."""
    rows = parse.record(RECORD).rows
    lines = []
    for i in range(count):
        row = rows[i % len(rows)]
        model = replace(row.cell.model, name=f"{row.cell.model.name}-{i // len(rows)}")
        lines.append(
            json.dumps(measurement.to_json(replace(row, key=f"{i:016x}", cell=replace(row.cell, model=model))))
        )
    (folder / NAME).write_text("\n".join(lines), encoding="utf-8")
    page = folder / "p.html"
    written = [write(folder, page) for _ in range(_TURNS)]
    size = page.stat().st_size
    with Browser() as browser:
        tab = browser.page()
        opened, sorted_s = [], []
        for _ in range(_TURNS):
            started = time.perf_counter()
            tab.open(page)
            opened.append(time.perf_counter() - started)
            heading = "document.querySelector('#table th:nth-child(6) button')"
            sorted_s.append(tab.run(
                f"(() => {{ const t = performance.now(); {heading}.click(); document.body.offsetHeight; "
                "return (performance.now() - t) / 1000 })()"
            ))  # fmt: skip
        complaints = tab.complaints
    print(f"{count} rows, median of {_TURNS}: written in {median(written):.2f} s (the whole process, to "
          f"{max(written):.2f}), {size / 1e6:.2f} MB; opened in {median(opened):.2f} s, sorted and laid out in "
          f"{median(sorted_s):.3f} s; {len(complaints)} complaints")  # fmt: skip


def take_picture(folder: Path, path: Path) -> None:
    """The first screen of the reference record's page."""
    write(REFERENCE / "make-bench-qwen-0.5b", folder / "p.html")
    with Browser() as browser:
        tab = browser.page(1100, 1056)
        tab.open(folder / "p.html")
        tab.screenshot(path, whole=False)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
