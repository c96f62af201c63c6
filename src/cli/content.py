"""The command `content`."""

from __future__ import annotations

from collections.abc import Sequence


def run(words: Sequence[str]) -> int:
    """Runs the command; returns the exit code."""
    from prepare.store_command import content_command

    return content_command(list(words))
