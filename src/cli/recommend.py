"""The best items of users, by the checkpoint of a finished run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from cli.parser import parse_options
from utils.config.schema import setting
from utils.errors import UserError
from utils.files import write_csv

SHOWN_USERS = 20


@dataclass(frozen=True)
class RecommendOptions:
    """What is recommended to whom."""

    run_folder: str = setting("folder of a finished run")
    users: list[int] | None = setting("user ids; without: all users", low=0, default=None)
    k: int = setting("items per user", low=1, default=20)
    output: str | None = setting("file to write; without: recommendations.tsv in the run folder", default=None)
    data_path: str | None = setting("folder of data sets, if it is elsewhere now", default=None)
    device: str | None = setting("auto, cpu, cuda or cuda:N; without: that of the run", default=None)


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    options = parse_options("recommend", RecommendOptions, words, ["run_folder"], __doc__ or "")
    if options is None:
        return 0
    folder = Path(options.run_folder).expanduser()
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder}: not a run folder (no config.yaml)")
    output = Path(options.output).expanduser() if options.output else folder / "recommendations.tsv"
    if options.output and not output.parent.is_dir():
        raise UserError(f"recommend: --output: there is no folder {output.parent}")
    if output.is_dir():
        raise UserError(f"recommend: --output: expected a file to write, got the folder {output}")

    from runner.stored_run import StoredRun

    stored = StoredRun.open(folder, options.data_path, options.device)
    users = list(dict.fromkeys(options.users or range(stored.dataset.n_users)))
    stored.check(users, options.k)
    found = stored.recommend(users, options.k)
    by_user: dict[str, list[str]] = {}
    for one in found:
        by_user.setdefault(one.user, []).append(one.item)
    for user, items in list(by_user.items())[:SHOWN_USERS]:
        print(f"user {user}: {' '.join(items)}")
    if len(users) > SHOWN_USERS:
        print(f"... and {len(users) - SHOWN_USERS:,} more users")
    write_csv(output, map(asdict, found), "\t")
    print(f"written to {output}")
    return 0
