"""The metric that picks epoch and grid point: one, or a weighted sum as "0.5*Recall@20 + 0.5*NDCG@20"."""

from __future__ import annotations

import re

TERM = re.compile(r"(?:(\d*\.?\d+(?:e-?\d+)?)\s*\*\s*)?([a-z]\w*@\d+)", re.ASCII)
EXAMPLE = "0.5*Recall@20 + 0.5*NDCG@20"


def weights_of(text: str) -> dict[str, float]:
    """Metric (as recall@20) to its weight.

    Raises:
        ValueError: if the text is no metric and no sum of metrics, or names one twice.
    """
    found = [TERM.fullmatch(term.strip()) for term in text.lower().split("+")]
    terms = [(match[2], float(match[1] or 1)) for match in found if match]
    if len(terms) < len(found) or len(dict(terms)) < len(terms) or not all(weight > 0 for _, weight in terms):
        raise ValueError(text)
    return dict(terms)


def is_sum(name: str) -> bool:
    """Whether the name of a metric stands for a sum."""
    return "*" in name or "+" in name
