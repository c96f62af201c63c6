"""The k largest scores of each row, ties included in the contract."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

GROUP = 8  # columns of a group in the search for the largest scores


def ranked_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each row, ties broken by the smaller column, whatever the device.

    Args:
        scores: [B, I], no NaN; -inf: not to be ranked.
        k: at most I.

    Returns:
        values [B, k] and columns [B, k], best first.
    """
    n_items = scores.shape[1]
    values, columns = _largest(scores, min(k + 1, n_items))
    equal = (values[:, 1:] == values[:, :-1]) & (values[:, 1:] > -torch.inf)
    best, columns = values[:, :k], columns[:, :k]
    if (inside := equal[:, : k - 1].any(dim=1)).any():
        by_column, order = columns[inside].sort(dim=1)
        best[inside], order = best[inside].gather(1, order).sort(dim=1, descending=True, stable=True)
        columns[inside] = by_column.gather(1, order)
    if k < n_items and (across := equal[:, k - 1]).any():
        # Which of the equals topk took at the boundary is undefined, so those rows are sorted in full.
        full, by_rank = scores[across].sort(dim=1, descending=True, stable=True)
        best[across], columns[across] = full[:, :k], by_rank[:, :k]
    return best, columns


def _largest(scores: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """`scores.topk(n, dim=1)`, on a CPU in two steps: the n groups of columns with the largest maxima hold the n largest.

    Among equals another column may be taken than by topk, but only where the n-th value has an equal.
    """
    n_rows, width = scores.shape
    n_groups = width // GROUP
    if scores.device.type != "cpu" or n_groups < 4 * n:
        return scores.topk(n, dim=1)
    grouped = scores[:, : n_groups * GROUP].view(n_rows, GROUP, n_groups)  # group g: columns g, g + n_groups, ...
    # NumPy's selection of columns is faster here than topk, even on one thread against two.
    best = torch.from_numpy(np.argpartition(grouped.amax(dim=1).numpy(), -n, axis=1)[:, -n:])
    candidates = (best[:, None, :] + torch.arange(0, n_groups * GROUP, n_groups)[:, None]).view(n_rows, -1)
    ungrouped = torch.arange(n_groups * GROUP, width).expand(n_rows, -1)
    candidates = torch.cat([candidates, ungrouped], dim=1)
    values, place = scores.gather(1, candidates).topk(n, dim=1)
    return values, candidates.gather(1, place)
