"""The k largest scores of each row, ties included in the contract."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

WIDE = 2**14  # columns from which they are searched in groups of GROUP
GROUP = 8
NEGATIVE = 0x7FFFFFFF  # the bits whose change reverses the order of negative floats
LOW = 0xFFFFFFFF  # the lower half of a key


def ranked_topk(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of each row, ties broken by the smaller column, whatever the device.

    Args:
        scores: [B, I], no NaN; -inf: not to be ranked.
        k: at most I.

    Returns:
        values [B, k] and columns [B, k], best first.
    """
    n_items = scores.shape[1]
    if scores.device.type == "cpu" and scores.dtype == torch.float32 and (found := _above_bound(scores, k)):
        return found
    values, columns = scores.topk(min(k + 1, n_items), dim=1)
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


def _above_bound(scores: Tensor, k: int) -> tuple[Tensor, Tensor] | None:
    """`ranked_topk` by a bound of each row, the k-th largest of some groups' maxima: only what reaches it is sorted.

    Returns:
        None where that does not help: few columns, a row with fewer than k scores above -inf, many equal scores, NaN.
    """
    (n_rows, width), table = scores.shape, scores.numpy()
    group = GROUP if width >= WIDE else 1
    n_groups = width // group
    if n_groups < 4 * k or not n_rows:
        return None
    maxima = table
    if group > 1:  # group g: columns g, g + n_groups, ...
        even = group * n_groups
        maxima = scores[:, :even].view(n_rows, group, n_groups).amax(dim=1).numpy()
        maxima[:, : width - even] = np.maximum(maxima[:, : width - even], table[:, even:])
    coarse = maxima[:, : n_groups // (4 * k) * 4 * k].reshape(n_rows, -1, 4 * k).max(axis=1)
    bound = np.maximum(np.partition(coarse, -k, axis=1)[:, -k], np.finfo(np.float32).min)
    places = np.flatnonzero(~(maxima < bound[:, None]))  # not below: NaN is among them
    if len(places) > 2 * k * n_rows:
        return None
    rows, groups = np.divmod(places, n_groups)
    columns = groups[:, None] + np.arange(0, width, n_groups)
    values = table.ravel().take((rows * width)[:, None] + columns, mode="clip")
    kept = np.flatnonzero(~(values < bound[rows, None]) & (columns < width))
    rows, columns, values = rows[kept // columns.shape[1]], columns.ravel()[kept], values.ravel()[kept]
    counts = np.bincount(rows, minlength=n_rows)
    if counts.min() < k or np.isnan(values).any():
        return None
    # One whole number orders by score, then by the smaller column.
    bits = (values + np.float32(0)).view(np.int32)  # -0.0 equals 0.0
    keys = np.full((n_rows, counts.max()), np.iinfo(np.int64).min)
    within = np.arange(len(kept)) - np.repeat(counts.cumsum() - counts, counts)
    keys[rows, within] = (bits ^ (bits >> 31 & NEGATIVE)).astype(np.int64) << 32 | LOW - columns
    keys.sort(axis=1)
    best = keys[:, : -k - 1 : -1]
    bits = (best >> 32).astype(np.int32)
    return torch.from_numpy((bits ^ (bits >> 31 & NEGATIVE)).view(np.float32)), torch.from_numpy(LOW - (best & LOW))
