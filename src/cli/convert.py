"""The command `convert`."""

from __future__ import annotations

from collections.abc import Sequence


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    from prepare.conversion.convert import convert_command

    return convert_command(list(words))
