"""What content is worth: each entry with other features in place of its own, beside the same entry with its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from study.report.figure import metric_name
from study.report.tables import Cell, Content, Table
from study.select import Chosen, mean_and_spread, replaced
from study.spec import Entry

KEYS = ("modality_input", "missing_share")


def input_table(content: Content) -> Table | None:
    """The change of each test metric where `modality_input` or `missing_share` replaces features; None where no two tell.

    An entry is compared with the first one of the same model, settings, search space and data set whose features are real.
    """
    metrics = content.study.report.metrics
    entries = {entry.label: entry for entry in content.study.entries}
    shared = content.study.settings
    rows = []
    for one in content.chosen:
        other_features = replaced({**shared, **entries[one.label].settings})
        if not other_features or one.best is None:
            continue
        real = next((other for other in content.chosen if _is_real_twin(one, other, entries, shared)), None)
        if real is None or real.best is None:
            continue
        cells = []
        for metric in metrics:
            with_own, _ = mean_and_spread(real.best.test(metric))
            change = mean_and_spread(one.best.test(metric))[0] - with_own
            relative = f" ({change / with_own:+.1%})" if with_own else ""
            cells.append(Cell(f"{change:+.4f}{relative}", change))
        what = ", ".join(f"{modality} {word}" for modality, word in other_features.items())
        rows.append((Cell(one.dataset, one.dataset), content.named(real), Cell(what, what), *cells))
    if not rows:
        return None
    caption = (
        "Change of the test mean over seeds where other features stand in for a modality's own (zeros, noise of the same "
        "scale, or the rows of other items) or a share of the items lacks it. Near zero: the model does not use what is in "
        "them."
    )
    header = ("data set", "entry", "features", *(metric_name(metric) for metric in metrics))
    return Table("What the modalities are worth", caption, header, tuple(rows), notes=tuple(content.footnotes()))


def _is_real_twin(one: Chosen, other: Chosen, entries: Mapping[str, Entry], shared: Mapping[str, Any]) -> bool:
    mine, theirs = entries[one.label], entries[other.label]
    if one.dataset != other.dataset or replaced({**shared, **theirs.settings}):
        return False
    return mine.without(*KEYS) == theirs.without(*KEYS)
