"""From options to a data set's folder: `prepare` as one function."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from prepare.content import feature_files
from prepare.download import download, unpack
from prepare.file_tools import make_named_folder
from prepare.lines import Reading, Tally
from prepare.options import Inputs, PrepareOptions, category_of, files_to_download, find_inputs
from prepare.pipeline import Pipeline
from prepare.sources.source import published_source
from prepare.steps import Steps
from prepare.summary import report, write_manifest
from utils.errors import UserError
from utils.progress import ProgressBar

FIRST_LINES = 1000  # of each file, read before any step runs


def prepare_dataset(options: PrepareOptions, say: Callable[[str], None] = print) -> None:
    """Makes the folder of a data set from raw files, or continues; with `dry_run` it only checks and prints the plan.

    Raises:
        UserError: for options that do not fit the files, or files that cannot be used.
    """
    missing = files_to_download(options)
    if missing and options.dry_run:
        for url, path in missing:
            say(f"download: {url} -> {path}")
        say("what comes after depends on these files; --dry_run without --download checks what is there")
        return
    for url, path in missing:
        _fetch(options, url, path, say)
    inputs = find_inputs(options)
    check_first_lines(options, inputs)
    with Pipeline(options.folder, options.quiet, options.dry_run) as pipeline:
        steps = Steps(options, inputs, pipeline).all()
        if options.dry_run:
            for step, reason in pipeline.plan(steps):
                say(f"{step.name:16} {'runs: ' + reason if reason else 'unchanged, skipped'}")
            return
        records = pipeline.run(steps, say)
        write_manifest(options, inputs, records, pipeline.hashes)
    say("")
    say("\n".join(report(options, inputs, records)))


def _fetch(options: PrepareOptions, url: str, path: Path, say: Callable[[str], None]) -> None:
    """Downloads a file; one that was begun is continued, an archive is unpacked."""
    make_named_folder(path.parent, "--raw")
    say(f"download: {url}")
    progress = ProgressBar(path.name, options.quiet)
    try:
        download(url, path, progress=progress)
    finally:
        progress.close()
    if path.suffix == ".zip":
        names = published_source(options.source).file_names(category_of(options)).values()
        say(f"unpacked: {', '.join(unpack(path, names))}")


def check_first_lines(options: PrepareOptions, inputs: Inputs) -> None:
    """Reads the beginning of every input, so that what cannot work is refused before any step runs.

    Raises:
        UserError: with every problem that shows.
    """
    problems: list[str] = []

    def attempt(check: Callable[[], object]) -> None:
        try:
            check()
        except UserError as error:
            problems.extend(error.problems)

    columns = tuple(options.text_columns or ())
    how = Reading(True, None, FIRST_LINES, options.columns, columns, options.text_id)
    attempt(lambda: _check_interactions(options, inputs, how))
    if inputs.item_file:
        attempt(lambda: _check_items(inputs, how))
    for stem, path in inputs.features.items():
        ids = inputs.feature_ids.get(stem)
        attempt(partial(_check_matrix, path, ids))
    if records := inputs.files.get("image_features"):
        attempt(lambda: feature_files.count_records(records, options.accept_truncated))
    if problems:
        raise UserError(*problems)


def _check_interactions(options: PrepareOptions, inputs: Inputs, how: Reading) -> None:
    table, tally, _ = inputs.source.interactions(inputs.files, how)
    if not len(table):
        where = (
            f"in the first {FIRST_LINES:,} lines"
            if tally.read >= FIRST_LINES - 1
            else f"in {tally.read:,} {tally.unit}"
        )
        raise UserError(f"{tally.name}: no interaction {where}: {tally.reasons()}".rstrip(": "))
    needs = {
        "rating": (options.threshold is not None, table.ratings, "--threshold"),
        "time": (
            options.split in ("chronological", "leave_one_out", "global_time"),
            table.times,
            f"--split {options.split}",
        ),
        "split": (options.split == "given", table.labels, "--split given"),
    }
    raise_for = [(role, option) for role, (needed, column, option) in needs.items() if needed and column is None]
    if raise_for:
        raise UserError(*(
            f"{option}: the interactions have no {role}s; name their column with --columns {role}=NAME"
            for role, option in raise_for
        ))  # fmt: skip


def _check_matrix(path: Path, ids: Path | None) -> None:
    feature_files.open_matrix(path, len(feature_files.read_ids(ids)) if ids else None)


def _check_items(inputs: Inputs, how: Reading) -> None:
    for entry in inputs.item_source.items(inputs.files, {}, how):
        if isinstance(entry, Tally) and entry.read and all(reason.startswith("malformed") for reason in entry.dropped):
            raise UserError(f"{entry.name}: no item in the first {entry.read:,} lines: {entry.reasons()}")
