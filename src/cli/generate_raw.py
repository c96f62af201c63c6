"""The command `generate_raw`."""

from __future__ import annotations

from collections.abc import Sequence


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    from prepare.synthetic_raw.raw_spec import raw_command

    return raw_command(list(words))
