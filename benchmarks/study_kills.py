"""Kills a study's driver or one of its workers at random moments, again and again, and compares the tables at the end.

    python benchmarks/study_kills.py [--kills 20] [--seed 0]

A study of three models on the demo data, two workers, is run once undisturbed and once with kill -9 after a random while,
driver and worker in turn; the driver is started again when it was the victim. A killed worker's trial is taken up by another
worker. The tables of the report, main.csv and trials.csv, must be equal in every digit, but for the column of seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

MAIN = Path(__file__).resolve().parents[1] / "src" / "main.py"


def study(epochs: int) -> dict[str, object]:
    """The content of the study file."""
    return {
        "name": "kills",
        "datasets": ["demo"],
        "seeds": [1, 2],
        "settings": {"epochs": epochs, "stopping_step": epochs},
        "entries": [
            {"model": "LightGCN", "grid": {"n_ui_layers": [1, 2, 3]}},
            {"model": "BPR", "grid": {"reg_weight": [1e-3, 1e-2, 1e-1]}},
            {"model": "GTC", "grid": {"tc_weight": [0.01, 0.02, 0.04]}},
        ],
        "reference": "GTC",
        "report": {"metrics": ["recall@20", "ndcg@20"], "figures": []},
    }


def start(file: Path, output: Path) -> subprocess.Popen[bytes]:
    """The study command, in a session of its own."""
    words = [sys.executable, str(MAIN), "study", str(file), "--workers", "2", "--output_dir", str(output)]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid` and that run Python code of the study (Linux)."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            text = stat.read_text()
            if int(text.rpartition(")")[2].split()[1]) == pid:
                found.append(int(stat.parent.name))
    workers = []
    for child in found:
        with contextlib.suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                workers.append(child)
    return workers


def tables(output: Path) -> dict[str, list[dict[str, str]]]:
    """The report's tables by name: their rows, without the seconds that a trial took."""
    found = {}
    for path in sorted((output / "studies" / "kills" / "report").glob("*.csv")):
        with open(path, newline="") as file:
            found[path.name] = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=40)
    given = parser.parse_args()
    stream = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "kills.yaml"
        file.write_text(yaml.safe_dump(study(given.epochs)))
        calm, stormy = Path(place) / "calm", Path(place) / "stormy"
        assert start(file, calm).wait() == 0, "the undisturbed study failed"
        kills = {"driver": 0, "worker": 0}
        rounds = 0
        while True:
            driver = start(file, stormy)
            while sum(kills.values()) < given.kills:
                try:
                    driver.wait(timeout=stream.uniform(3, 12))
                    break
                except subprocess.TimeoutExpired:
                    pass
                workers = children(driver.pid)
                victim = "worker" if kills["worker"] <= kills["driver"] and workers else "driver"
                with contextlib.suppress(ProcessLookupError):
                    os.kill(stream.choice(workers) if victim == "worker" else driver.pid, signal.SIGKILL)
                    kills[victim] += 1
                if victim == "driver":
                    driver.wait()
                    time.sleep(1)  # orphaned workers notice
                    break
            code = driver.wait()
            rounds += 1
            if code != -signal.SIGKILL:
                break
        a, b = tables(calm), tables(stormy)
        different = sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))
        print(
            f"{kills['driver']} kills of the driver, {kills['worker']} of a worker, {rounds} starts, exit code {code}"
        )
        print(f"{len(a)} tables: {', '.join(a)}")
        print(f"different: {', '.join(different)}" if different else "all tables are equal in every digit")
        return 1 if different or not a or code else 0


if __name__ == "__main__":
    sys.exit(main())
