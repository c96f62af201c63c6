"""Runs every trial of a study that is not done yet and writes its report; see docs/studies.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.arguments import FORMS
from cli.parser import parse_options
from study.spec import read_study
from utils.config.schema import setting
from utils.errors import UserError


@dataclass(frozen=True)
class StudyOptions:
    """Which study runs, with what, and where."""

    file: str = setting("the study file, FILE.yaml")
    dataset: list[str] | None = setting(
        "these data sets in place of the file's; the study is then called NAME-DATASET", default=None
    )
    seed: list[int] | None = setting("these seeds in place of the file's", low=0, high=2**32 - 1, default=None)
    dry_run: bool = setting(
        "say what is left to run and for how long, by the finished trials or one measured epoch", default=False
    )
    workers: int = setting("processes that share the trials; 0: this one", low=0, default=0)
    threads_per_worker: int = setting(
        "CPU threads of a trial; with 1 any number of workers gives the same bits", low=1, default=1
    )
    launcher: str = setting(
        "processes of this machine, or tasks of a Ray cluster", choices=("local", "ray"), default="local"
    )
    address: str | None = setting("of the Ray cluster; without: one on this machine", default=None)
    output_dir: str | None = setting("the study goes to DIR/studies/NAME; without: runs/ of the project", default=None)
    data_path: str | None = setting("folder of data sets", default=None)
    cache_dir: str | None = setting("folder of derived graphs and reduced features", default=None)
    device: str | None = setting("auto, cpu, cuda or cuda:N", default=None)
    retry_failed: bool = setting("run failed trials again", default=False)
    rerun_changed: bool = setting("run trials again that another version of the code has finished", default=False)
    keep_checkpoints: bool = setting("leave the best weights in the run folders", default=False)
    figure_format: list[str] = setting("formats of the figures", choices=FORMS, default=list(FORMS))
    quiet: bool = setting("no progress bar", default=False)


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse_options("study", StudyOptions, words, ["file"], __doc__ or "")
    if options is None:
        return 0
    file = Path(options.file).expanduser()
    problems = []
    if options.launcher == "ray" and options.workers:
        problems.append(
            "study: --workers goes with --launcher local; Ray runs as many trials as the cluster has room for"
        )
    if options.address and options.launcher != "ray":
        problems.append("study: --address goes with --launcher ray")
    if not file.is_file():
        problems.append(f"study: there is no file {file}")
    if problems:
        raise UserError(*problems)

    changes: dict[str, Any] = {"datasets": options.dataset, "seeds": options.seed}
    changes = {key: value for key, value in changes.items() if value is not None}
    # What is wrong with the file is said before PyTorch is imported.
    read_study(file, Path(options.data_path).expanduser() if options.data_path else None, changes)

    from study.execute import How
    from study.run_study import run_study

    flags = {name: getattr(options, name) for name in ("retry_failed", "rerun_changed", "keep_checkpoints", "quiet")}
    return run_study(
        file,
        Path(options.output_dir).expanduser().absolute() if options.output_dir else None,
        {name: getattr(options, name) for name in ("data_path", "cache_dir", "device")}
        | {"threads": options.threads_per_worker},
        How(options.workers, options.launcher, options.address, **flags),
        options.dry_run,
        changes,
        options.figure_format,
    )
