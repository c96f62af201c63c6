"""Peak memory of `recommend` for all users above that of the process once the run is loaded, and its time (Linux only).

python src/main.py generate elec_like --data_path DIR --size elec
python src/main.py -m BPR -d elec_like --data_path DIR --epochs 1
python benchmarks/recommend.py RUN [other options of recommend]
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from cli import recommend
from runner.stored_run import StoredRun


def mebibytes(name: str) -> float:
    """A figure of this process: VmRSS now, VmHWM at most."""
    return int(re.findall(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())[0]) / 1024


def main() -> None:
    load, loaded = StoredRun.open, []

    def opened(*words: Any) -> StoredRun:
        run = load(*words)
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM counts from here on
        loaded.append((time.perf_counter(), mebibytes("VmRSS"), run.dataset.n_users))
        return run

    with patch.object(StoredRun, "open", opened):
        recommend.run(sys.argv[1:])
    ((start, before, users),) = loaded
    seconds, above = time.perf_counter() - start, mebibytes("VmHWM") - before
    print(f"{users:,} users: {above:.0f} MiB at most above {before:.0f} MiB, {seconds:.0f} s")


if __name__ == "__main__":
    main()
