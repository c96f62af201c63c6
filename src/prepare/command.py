"""The command `prepare`: from raw files to a data set's folder, and what was done to get there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cli.words import take_apart
from prepare.options import FLAGS, SEVERAL, SINGLE, USAGE, read_options
from prepare.pipeline import Pipeline, Progress, make_place
from prepare.steps import Steps
from prepare.summary import report, sources, write_manifest
from utils.errors import UserError, nearest


def prepare_command(arguments: list[str]) -> int:
    """The command `prepare`; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE)
        return 0
    name = arguments[0]
    if name.startswith("-"):
        raise UserError("prepare: the name of the data set is missing; usage: main.py prepare NAME [options]")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UserError(f"prepare: expected a name of letters, digits, _ . and -, got '{name}'")
    words = take_apart(arguments[1:], FLAGS)
    problems = [
        f"prepare: unknown option --{option}{nearest(option, [*FLAGS, *SINGLE, *SEVERAL])}"
        for option in words.options
        if option not in (*SINGLE, *SEVERAL)
    ]
    problems += [f"prepare: --{option}: a value is missing" for option, values in words.options.items() if not values]
    problems += [
        f"prepare: --{option}: expected one value, got {len(words.options[option])}"
        for option in SINGLE
        if len(words.options.get(option, [])) > 1
    ]
    if problems:
        raise UserError(*problems)
    quiet, dry = "quiet" in words.flags, "dry_run" in words.flags
    wanted, options = read_options(name, words)
    if wanted and dry:
        for url, path in wanted:
            print(f"download: {url} -> {path}")
        print("what comes after depends on these files; --dry_run without --download tells what is there")
        return 0
    fetch(wanted, quiet)
    if wanted:
        _, options = read_options(name, words)
    assert options is not None
    with Pipeline(options.folder, quiet, dry) as pipeline:
        steps = Steps(options, pipeline).all()
        if dry:
            for step, reason in pipeline.plan(steps):
                print(f"{step.name:16} {'runs: ' + reason if reason else 'unchanged, skipped'}")
            return 0
        records = pipeline.run(steps, print)
        hashes = [[path.name, path.stat().st_size, pipeline.hashes.of(path)] for path in sources(options)]
        write_manifest(options, records, hashes, pipeline.hashes)
    print()
    print("\n".join(report(options, records)))
    return 0


def fetch(wanted: Sequence[tuple[str, Path]], quiet: bool) -> None:
    """Downloads files one after another; a file that was begun is gone on with."""
    from prepare.download import download

    for url, path in wanted:
        make_place(path.parent, "--raw")
        print(f"download: {url}")
        progress = Progress(path.name, quiet)
        try:
            download(url, path, progress=progress)
        finally:
            progress.close()
