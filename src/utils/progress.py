"""The progress bar of every command: on stderr, and where that is no terminal a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from tqdm import tqdm

SMALLEST = 1e-9  # a total of 0 has no percentage


class ProgressBar:
    """A bar that appears at its first call and is gone when closed.

    Args:
        title: stands before the bar.
        quiet: show nothing.
        total: amount of work; None: each call says it.
        every: seconds between two lines where stderr is no terminal.
    """

    def __init__(self, title: str, quiet: bool = False, total: float | None = None, every: float = 10.0) -> None:
        self.title, self.quiet, self.total, self.every = title, quiet, total, every
        self.bar: tqdm | None = None

    def __call__(
        self, done: float, total: float | None = None, shown: Mapping[str, object] | None = None, title: str = ""
    ) -> None:
        """Shows that `done` of `total` is done; nothing happens while no total is known.

        Args:
            done: amount of work done.
            total: amount of work in all; None: as before.
            shown: names and values that stand behind the bar.
            title: replaces the title.
        """
        total = self.total if total is None else total
        if total is None:
            return
        total = max(total, SMALLEST)
        if self.bar is None:
            self.bar = tqdm(
                total=total,
                initial=min(done, total),
                desc=self.title,
                disable=self.quiet,
                mininterval=0.2 if sys.stderr.isatty() else self.every,
                bar_format="{desc} {percentage:3.0f}%|{bar:20}| {elapsed}<{remaining}{postfix}",
                leave=False,
                dynamic_ncols=True,
            )
        self.bar.total = total
        if shown:
            self.bar.set_postfix(shown, refresh=False)
        if title:
            self.bar.set_description_str(title, refresh=False)
        self.bar.update(min(done, total) - self.bar.n)

    def close(self) -> None:
        """Takes the bar away."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
