"""How long `board` takes over many run folders, how large its page is, and how soon Chromium shows the table.

python benchmarks/board.py RUN [--runs 2000] [--keep DIR]

The runs are copies of one run folder: models, data sets, seeds and settings vary, metrics are scaled at random, and each
has a curve of 100 epochs. The page is opened where Playwright and a Chromium are installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

MAIN = Path(__file__).resolve().parent.parent / "src" / "main.py"
MODELS = ("BM3", "BPR", "FREEDOM", "GTC", "LATTICE", "LightGCN", "MGCN", "VBPR")
DATASETS = ("baby", "clothing", "sports", "tiktok")


def copies(run: Path, target: Path, n: int) -> None:
    """Writes n run folders like `run`; per_user.csv is a link, so that only the disk is spared."""
    random = np.random.default_rng(0)
    config, manifest = yaml.safe_load((run / "config.yaml").read_text()), (run / "manifest.json").read_text()
    metrics = json.loads((run / "metrics.json").read_text())
    chosen = f"valid_{metrics['valid_metric']}"
    for number in range(n):
        model, dataset = MODELS[number % len(MODELS)], DATASETS[number // len(MODELS) % len(DATASETS)]
        folder = target / dataset / model / f"{number:08x}-s{number % 5}"
        folder.mkdir(parents=True)
        drawn = {"learning_rate": round(10 ** random.uniform(-4, -2), 6), "seed": number % 5,
                 "reg_weight": float(random.choice([0.0001, 0.001, 0.01])), "cl_weight": round(random.random(), 4),
                 "embedding_size": int(random.choice([64, 128])), "dropout": round(random.random(), 3)}  # fmt: skip
        settings = config | {"model": model, "dataset": dataset} | drawn
        (folder / "config.yaml").write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()))
        scale = random.uniform(0.5, 1)
        scaled = {split: {name: scale * value for name, value in metrics[split].items()} for split in ("valid", "test")}
        (folder / "metrics.json").write_text(json.dumps(metrics | scaled))
        (folder / "manifest.json").write_text(manifest.replace('"train": "', f'"train": "{dataset}'))
        best = scaled["valid"][metrics["valid_metric"]]
        curve = best * (1 - np.exp(-np.arange(1, 101) / 20)) + random.normal(0, best / 100, 100)
        rows = "".join(f"{epoch},{value:.17g}\n" for epoch, value in enumerate(curve, 1))
        (folder / "history.csv").write_text(f"epoch,{chosen}\n{rows}")
        os.link(run / "per_user.csv", folder / "per_user.csv")


def opened(page: Path, rows: int) -> str:
    """How soon the table stands in Chromium, and how long a sort takes."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return "not opened: Playwright is not installed"
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page()
        start = time.perf_counter()
        tab.goto(page.as_uri(), wait_until="commit")
        tab.wait_for_function(f"document.querySelectorAll('#body tr').length === {rows}")
        middle = time.perf_counter()
        tab.click("#sort-seconds")
        tab.wait_for_selector("th[aria-sort] #sort-seconds")
        end = time.perf_counter()
        browser.close()
    return f"table after {middle - start:.1f} s, sorted in {end - middle:.1f} s"


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("run", type=Path)
    words.add_argument("--runs", type=int, default=2000)
    words.add_argument("--keep", type=Path, help="folder for the runs and the page; without: removed at the end")
    given = words.parse_args()
    # Beside the run, for links need the same disk.
    with tempfile.TemporaryDirectory(dir=given.run.resolve().parent) as scratch:
        place = given.keep or Path(scratch)
        copies(given.run.resolve(), place / "runs", given.runs)
        page = place / "board.html"
        start = time.perf_counter()
        subprocess.run([sys.executable, str(MAIN), "board", str(place / "runs"), "--output", str(page)], check=True)
        print(f"made in {time.perf_counter() - start:.1f} s, {page.stat().st_size / 2**20:.1f} MiB")
        print(opened(page.resolve(), min(100, given.runs)))


if __name__ == "__main__":
    main()
