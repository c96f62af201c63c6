"""Helpers of the command-line tests: tiny data sets on disk, the program in this process, in a new one, and in forks.

As a script it is the fork server behind `Forks`: what a run imports is loaded once, then every run is a process of its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parent.parent
MAIN = ROOT / "src" / "main.py"
N_USERS, N_ITEMS = 40, 55
Row = tuple[Any, ...]


@dataclass(frozen=True)
class Outcome:
    """What a command gave back."""

    code: int
    out: str
    err: str

    @property
    def folders(self) -> list[Path]:
        """The run folders that the command named, in order."""
        return [Path(found) for found in re.findall(r"^\[\d+/\d+\] .*\bin (/\S+)", self.out, re.MULTILINE)]


def run_here(*words: object) -> Outcome:
    """Runs a command in this process."""
    from cli.command_line import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return Outcome(code, out.getvalue(), err.getvalue())


def run_process(*words: object, cwd: Path | None = None, main: Path | str = MAIN) -> Outcome:
    """Runs a command in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(main), *map(str, words)],
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def environment() -> dict[str, str]:
    """The environment of a process that runs the program as a user would, but with one thread."""
    taken_out = ("PYTHONPATH", "MMR_DATA_PATH", "PYTHONWARNINGS")
    return {k: v for k, v in os.environ.items() if k not in taken_out} | {"OMP_NUM_THREADS": "1"}


def trained(*words: object) -> Outcome:
    """Runs a command in this process that has to succeed."""
    outcome = run_here(*words)
    assert outcome.code == 0, outcome.err
    return outcome


def places(folder: Path) -> list[str]:
    """Words for everything that a run reads and writes to be under `folder`."""
    words = {"data_path": folder / "data", "output_dir": folder / "runs", "cache_dir": folder / "cache"}
    return [word for name, path in words.items() for word in (f"--{name}", str(path))] + ["--device", "cpu"]


def toy_rows() -> list[Row]:
    """Rows (user, item, label): 7 to 13 items a user without repeats, one for validation and two or six for test."""
    random = np.random.default_rng(0)
    rows: list[Row] = []
    for user in range(N_USERS):
        mine = N_ITEMS - 1 - user  # so that the last item is somebody's: the largest id tells how many items there are
        others = [item for item in random.permutation(N_ITEMS).tolist() if item != mine]
        items = [mine, *others[: 6 + 2 * (user % 4)]]
        n_test = 6 if user % 4 == 3 else 2
        labels = [0, *[2] * n_test, 1, *[0] * len(items)]
        rows += [(user, item, label) for item, label in zip(items, labels, strict=False)]
    return rows


def write_inter(
    path: Path, rows: Sequence[Row], header: Sequence[str] = ("userID", "itemID", "x_label"), separator: str = "\t"
) -> None:
    """Writes an interaction file."""
    lines = [separator.join(map(str, row)) for row in (header, *rows)]
    path.write_text("\n".join(lines) + "\n")


def write_features(path: Path, n_items: int = N_ITEMS, width: int = 5, seed: int = 0) -> None:
    """Writes a feature matrix."""
    np.save(path, np.random.default_rng(seed).standard_normal((n_items, width)).astype(np.float32))


def write_dataset(
    folder: Path, rows: Sequence[Row] | None = None, features: Sequence[str] = ("image", "text"), **settings: Any
) -> Path:
    """Writes a data set into `folder`, whose name is the data set's; settings go into its dataset.yaml."""
    folder.mkdir(parents=True)
    write_inter(folder / f"{folder.name}.inter", toy_rows() if rows is None else rows)
    for number, modality in enumerate(features):
        write_features(folder / f"{modality}_feat.npy", seed=number)
    if settings:
        (folder / "dataset.yaml").write_text(yaml.safe_dump(settings))
    return folder


def write_mappings(folder: Path, n_users: int = N_USERS, n_items: int = N_ITEMS) -> None:
    """Writes mapping files with original ids U0, U1.. and B0, B1.., the published way."""
    for name, field, letter, n in (("u", "userID", "U", n_users), ("i", "itemID", "B", n_items)):
        rows = [(f"{letter}{number}", number) for number in range(n)]
        write_inter(folder / f"{name}_id_mapping.csv", rows, ("original", field))


def contents(folder: Path, leave_out: str = "cache") -> dict[str, bytes | None]:
    """Every file (its bytes) and folder (None) under `folder`, but for the cache."""
    paths = sorted(folder.rglob("*"))
    kept = [path for path in paths if leave_out not in path.relative_to(folder).parts]
    return {str(path.relative_to(folder)): path.read_bytes() if os.path.isfile(path) else None for path in kept}


def metrics_of(folder: Path) -> dict[str, Any]:
    """What metrics.json holds, but for the seconds."""
    content: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    assert content.pop("seconds") >= 0
    return content


def copy_of_code(folder: Path) -> Path:
    """Copies src/, so that nobody changes the code under a run; returns the copy."""
    return Path(shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__")))


class Forks:
    """Runs commands in forked processes, one at a time; each may kill itself, or be killed from here.

    Args:
        source: the folder src/ to run.
        log: a file for what the commands print.
    """

    def __init__(self, source: Path, log: Path) -> None:
        self.log = log
        self.server = subprocess.Popen(
            [sys.executable, __file__, str(source), str(log)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *words: object, die_at: int = 0, after: bool = False) -> int:
        """Starts a command and returns its process id.

        Args:
            die_at: kill -9 at the n-th time that a file is put in place; 0: never.
            after: just after that instead of just before.
        """
        assert self.server.stdin
        assert self.server.stdout
        request = {"words": [str(word) for word in words], "die_at": die_at, "after": after}
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def wait(self) -> tuple[int, int]:
        """Exit code of the command that was started (-9: killed), and how many files it has put in place."""
        assert self.server.stdout
        code, placed = self.server.stdout.readline().split()
        return int(code), int(placed)

    def run(self, *words: object, die_at: int = 0, after: bool = False) -> tuple[int, int]:
        """Runs a command to its end; see `start` and `wait`."""
        self.start(*words, die_at=die_at, after=after)
        return self.wait()

    def __enter__(self) -> Forks:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.server.stdin
        assert self.server.stdout
        self.server.stdin.close()
        self.server.wait(timeout=60)
        self.server.stdout.close()


def serve(source: str, log: str) -> None:
    """The server: a line with a request in; the process id, then exit code and number of files put in place out."""
    sys.path[0] = source
    import torch

    import runner.session  # noqa: F401 (loads all that a run needs)
    from cli.command_line import main

    torch.use_deterministic_algorithms(False)  # loads what PyTorch loads late

    for line in sys.stdin:
        request = json.loads(line)
        count = os.open(f"{log}.count", os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        pid = os.fork()
        if pid == 0:
            target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(target, 1)
            os.dup2(target, 2)
            os.replace = _counted(os.replace, count, request["die_at"], request["after"])  # type: ignore[assignment]
            code = 1
            try:
                code = main(request["words"])
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        print(pid, flush=True)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        print(code, os.fstat(count).st_size, flush=True)
        os.close(count)


def _counted(replace: Callable[..., None], count: int, die_at: int, after: bool) -> Callable[..., None]:
    def counted(*arguments: Any, **options: Any) -> None:
        os.write(count, b"x")
        now = os.fstat(count).st_size == die_at
        if now and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*arguments, **options)
        if now:
            os.kill(os.getpid(), signal.SIGKILL)

    return counted


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2])
