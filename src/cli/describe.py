"""The command `describe`."""

from __future__ import annotations

from collections.abc import Sequence


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    from prepare.describe import describe_command

    return describe_command(list(words))
