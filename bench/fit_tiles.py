"""Fits how products of any shape fill a card: harness/predict/tiles.py, and the shares in harness.catalog.efficiency.

python -m bench.fit_tiles [--read FOLDER]

On results/reference/published/products.csv: measured latencies of bf16 products on six cards, from the package
aiconfigurator-core 0.12.0 (NVIDIA, Apache-2.0; Dynamo's AIConfigurator), the median of its frameworks' measurements.
--read FOLDER makes that table from the package's folder systems/data (needs pyarrow). Needs scipy.
"""

import argparse
import csv
import math
from collections import defaultdict
from pathlib import Path
from statistics import median

from bench.published_steps import PUBLISHED
from harness.catalog import accelerators
from harness.predict import tiles

TABLE = PUBLISHED / "products.csv"
_CARDS = {
    "a100_sxm": "a100-80gb",
    "h100_sxm": "h100",
    "h200_sxm": "h200",
    "b200_sxm": "b200",
    "l40s": "l40s",
    "rtx_pro_6000_server": "rtx-pro-6000-server",
}
_ROWS, _SIDES = (256, 512, 1024, 2048, 4096, 8192), (1024, 2048, 4096, 5120, 8192, 12288)


def read(folder: Path) -> None:
    """Writes TABLE from the package's tables. Raises ImportError without pyarrow."""
    from pyarrow import parquet

    latencies = defaultdict(list)
    for path in sorted(folder.glob("*/gemm/*/*/gemm_perf.parquet")):
        card = _CARDS.get(path.parts[-5])
        for row in parquet.read_table(path).to_pylist() if card else ():
            shape = int(row["m"]), int(row["n"]), int(row["k"])
            wanted = shape[0] in _ROWS and shape[1] in _SIDES and shape[2] in _SIDES
            if row["gemm_dtype"] == "bfloat16" and wanted:
                latencies[card, *shape].append(float(row["latency"]))
    with TABLE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("card", "rows", "outputs", "inputs", "milliseconds"))
        writer.writerows((*key, f"{median(values):.4g}") for key, values in sorted(latencies.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--read", type=Path)
    if folder := parser.parse_args().read:
        read(folder)
    import numpy as np
    from scipy.optimize import least_squares

    table = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))
    names = sorted({row["card"] for row in table})
    which = np.array([names.index(row["card"]) for row in table])
    cards = [accelerators.find(name) for name in names]
    m, n, k, took = (np.array([float(row[c]) for row in table]) for c in ("rows", "outputs", "inputs", "milliseconds"))
    took = took / 1e3
    peak = np.array([card.rate("bf16")[0] for card in cards])[which]
    bandwidth = np.array([card.bandwidth for card in cards])[which]
    processors = np.array([tiles.processors_of(card) for card in cards])[which]

    def log_error(theta):
        shares, tile_shares, fill, launch = theta[: len(names)], np.append(0, theta[len(names) : -2]), *theta[-2:]
        padded = np.full(len(m), np.inf)
        for ((height, width), _), share in zip(tiles.TILES, tile_shares, strict=True):
            waves = np.ceil(np.ceil(m / height) * np.ceil(n / width) / processors)
            padded = np.minimum(padded, waves * height * width * np.exp(-share))
        seconds = 2 * padded * processors * (k + np.exp(fill)) / peak * np.exp(-shares[which])
        moved = 2 * (m * k + k * n + m * n) / bandwidth
        return np.log((np.maximum(seconds, moved) + np.exp(launch)) / took)

    start = np.array([-0.2] * len(names) + [math.log(share) for _, share in tiles.TILES[1:]] + [4.9, -13.0])
    fit = least_squares(log_error, start, loss="soft_l1", f_scale=0.1)
    for name, share in zip(names, np.exp(fit.x), strict=False):
        print(f"{name}: {share:.3f} of its peak")
    print("tiles:", np.round(np.exp(fit.x[len(names) : -2]), 3), "FILL:", round(float(np.exp(fit.x[-2])), 0))
    flat = np.log(2 * m * n * k / peak / took)
    flat -= np.array([np.median(flat[which == i]) for i in range(len(names))])[which]
    print(f"one share per card: {100 * np.median(np.abs(flat)):.1f} %, {100 * np.quantile(np.abs(flat), 0.9):.1f} %")
    error = np.abs(log_error(fit.x))
    print(f"by shape: {100 * np.median(error):.1f} %, 90th percentile {100 * np.quantile(error, 0.9):.1f} %")


if __name__ == "__main__":
    main()
