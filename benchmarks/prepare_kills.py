"""Kills `prepare` (kill -9) at random moments of every step and compares what it comes to with an undisturbed data set.

    python benchmarks/prepare_kills.py [--kills 30] [--size small] [--folder DIR] [--seed 0]

Raw files are generated. For each kill a fresh folder is prepared: the process is killed at a random moment of one of the
steps, which take turns, then the same command is run to its end. Two sets are alike if every file is, byte by byte,
but for the dates in manifest.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

MAIN = Path(__file__).resolve().parent.parent / "src" / "main.py"
DEFECTS = {
    "malformed": 7,
    "duplicated": 9,
    "missing_metadata": 5,
    "empty_text": 3,
    "non_utf8": 4,
    "missing_images": 6,
    "broken_images": 2,
}


def start(*words: object) -> subprocess.Popen[str]:
    """A command in a process of its own, whose lines come as they are printed."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, str(MAIN), *map(str, words)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def timeline(process: subprocess.Popen[str]) -> dict[str, float]:
    """Runs it to its end; the seconds that each step took."""
    assert process.stdout
    begun: dict[str, float] = {}
    for line in process.stdout:
        step, colon, _ = line.partition(":")
        if colon and step.isidentifier() and not begun.keys() & {"end"}:
            begun[step] = time.perf_counter()
        elif not line.strip():
            begun.setdefault("end", time.perf_counter())
    if process.wait():
        sys.exit(f"the command failed with exit code {process.returncode}")
    names = list(begun)
    return {name: begun[after] - begun[name] for name, after in itertools.pairwise(names)}


def kill_in(process: subprocess.Popen[str], step: str, delay: float) -> bool:
    """Kills it so many seconds after it began a step; False if it was done before."""
    assert process.stdout
    for line in process.stdout:
        if line.startswith(f"{step}:"):
            time.sleep(delay)
            break
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    return process.wait() == -signal.SIGKILL


def contents(folder: Path) -> dict[str, object]:
    """Bytes of every file but those of the work folder; the manifest without dates."""
    found: dict[str, object] = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    found["manifest.json"] = without_dates(json.loads((folder / "manifest.json").read_text()))
    return found


def without_dates(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: without_dates(value) for key, value in content.items() if key != "made"}
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--size", default="small", help="of generate_raw")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        raw = folder / "raw"
        defects = [word for key, value in DEFECTS.items() for word in (f"--{key}", value)]
        if start("generate_raw", raw, "--size", arguments.size, *defects).wait():
            sys.exit("the raw files cannot be generated")
        category = next(raw.glob("meta_*.json.gz")).name.removeprefix("meta_").removesuffix(".json.gz")

        def words(data: Path) -> list[object]:
            options = ["--category", category, "--fill_missing", "mean", "--text_encoder", "tfidf", "--quiet"]
            return ["prepare", "set", "--raw", raw, "--data_path", data, *options]

        seconds = timeline(start(*words(folder / "whole")))
        expected = contents(folder / "whole" / "set")
        print("undisturbed: " + ", ".join(f"{step} {s:.2f} s" for step, s in seconds.items()))
        draw = random.Random(arguments.seed)
        results: Counter[str] = Counter()
        for number in range(arguments.kills):
            step = list(seconds)[number % len(seconds)]
            delay = draw.uniform(0, seconds[step])
            killed = kill_in(start(*words(folder / "data")), step, delay)
            timeline(start(*words(folder / "data")))
            alike = contents(folder / "data" / "set") == expected
            results["killed" if killed else "done before the kill"] += 1
            results["identical" if alike else "different"] += 1
            what = f"{'killed' if killed else 'too late'}, then {'identical' if alike else 'DIFFERENT'}"
            print(f"{number + 1:3}  {step:16} after {delay:6.3f} s: {what}", flush=True)
            shutil.rmtree(folder / "data")
        print(", ".join(f"{n} {what}" for what, n in results.items()) + f"; {len(expected)} files compared each time")
        sys.exit(1 if results["different"] else 0)


if __name__ == "__main__":
    main()
