"""The program: which command is meant, and how mistakes, signals and lost readers end it."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any

from mmrec.plugin import mistakes_of_plugins
from utils.errors import UserError, nearest

# Each command is a module of this folder with a function `run`.
COMMANDS = {
    "train": "train and evaluate models; may be left out",
    "recommend": "the best items of users, by a finished run",
    "similar": "items like other items, by a finished run",
    "export": "embeddings of a finished run as npz, Parquet or safetensors",
    "study": "run the trials of a study file and write its report",
    "report": "write the report of a study again",
    "board": "all runs and studies on one HTML page",
    "serve": "answer over HTTP from a finished run",
    "generate": "generate a data set of any size",
    "prepare": "make a data set from raw files",
    "convert": "convert data sets from and to the formats of other frameworks",
    "describe": "sizes, splits and health of a data set",
    "audit": "check a data set for leakage",
    "content": "list, verify or compact the raw content of a data set",
    "generate_raw": "generate raw files in published layouts",
    "convert_user_graph": "convert MMRec's pickled user graph",
    "check_plugin": "try a model file on a tiny data set",
}

CORE_PACKAGES = {"torch", "numpy", "pandas", "scipy", "yaml", "lmdb", "tqdm", "matplotlib", "jinja2"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 1 for a failed run, 2 for a mistake in what was given."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    before = signal.getsignal(signal.SIGTERM)
    with contextlib.suppress(ValueError):  # not in the main thread: the caller handles signals
        signal.signal(signal.SIGTERM, _terminate)
    try:
        with mistakes_of_plugins():
            code = _dispatch(words)
        sys.stdout.flush()  # while a reader that has gone away can still be told from a mistake of ours
        return code
    except UserError as error:
        for problem in error.problems:
            print(f"error: {' '.join(problem.split())}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name not in CORE_PACKAGES:
            raise
        print(
            f"error: the package {error.name} is not installed for {sys.executable}; `make install` makes"
            " .venv/bin/python with all that is needed",
            file=sys.stderr,
        )
        return 2
    except (MemoryError, RuntimeError) as error:
        text = " ".join(str(error).split())
        if not isinstance(error, MemoryError) and not re.search("out of memory|can't allocate memory", text):
            raise
        print(f"error: not enough memory ({text[:200]}); use smaller sizes or batches", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        training = words[:1] == ["train"] or not words or words[0].startswith("-")
        print("\nstopped" + "; the same command with --resume continues" * training, file=sys.stderr)
        return 128 + (stop.args[0] if stop.args else signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}; check its permissions and the disk", file=sys.stderr)
        return 2
    finally:
        if signal.getsignal(signal.SIGTERM) is _terminate:
            signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: Any) -> None:
    raise KeyboardInterrupt(number)


def _dispatch(words: list[str]) -> int:
    command = "train"
    if words and not words[0].startswith("-"):
        command, *words = words
        if command not in COMMANDS:
            known = ", ".join(COMMANDS)
            raise UserError(f"unknown command '{command}'{nearest(command, COMMANDS)}; there are {known}")
    code: int = importlib.import_module(f".{command}", __package__).run(words)
    return code
