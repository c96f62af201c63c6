"""One check and its verdict: pass, warning (doubtful, or a fact that a reader of results should know) or leak."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PASS, WARNING, LEAK = "pass", "warning", "leak"


@dataclass(frozen=True)
class Check:
    """One check: its name, its verdict, what was found in words and in numbers."""

    name: str
    verdict: str
    text: str
    numbers: dict[str, Any] = field(default_factory=dict)


def plural(n: int, noun: str) -> str:
    """A count with its noun."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")
