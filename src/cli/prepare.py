"""Makes DATA_PATH/NAME from raw files. The same command continues after a kill and skips what is done; see docs/data.md."""

from __future__ import annotations

from collections.abc import Sequence

from cli.arguments import check_name
from cli.parser import parse_options


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    from prepare.options import ALL, PrepareOptions, files_to_download, find_inputs

    def adapt(values: dict[str, list[str]]) -> None:
        """Of --columns several may be joined by commas, and one FILE of --feature_ids is for all matrices."""
        if "columns" in values:
            values["columns"] = [part for word in values["columns"] for part in word.split(",")]
        ids = values.get("feature_ids", [])
        if len(ids) == 1 and "=" not in ids[0]:
            values["feature_ids"] = [f"{ALL}={ids[0]}"]

    options = parse_options("prepare", PrepareOptions, words, ["name"], __doc__ or "", adapt)
    if options is None:
        return 0
    check_name("prepare", options.name)

    if not files_to_download(options):
        find_inputs(options)  # so that mistakes in the options are said before anything large is imported

    from prepare.prepare_dataset import prepare_dataset

    prepare_dataset(options)
    return 0
