"""The command `prepare`."""

from __future__ import annotations

from collections.abc import Sequence


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    from prepare.command import prepare_command

    return prepare_command(list(words))
