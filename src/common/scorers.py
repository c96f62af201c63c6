"""What may be added to the scores of any model at evaluation: how popular items are, and how often they were taken together.

Both are counted from the training interactions. Both are in units of the spread of a user's scores, so that a weight means
the same for a model whose scores are cosines as for one whose scores go to a hundred.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from common.spectral import co_occurrence_bytes, co_occurring_items, log_popularity

if TYPE_CHECKING:
    from utils.data.dataset import Dataset

Scorer = Callable[[Tensor], Tensor]  # users [B] to scores [B, I]

# What calibration tries: times the weight that is configured, or, where no weight is, these weights; and dampings.
MULTIPLES = {"co_occurrence": (0.0, 0.25, 0.5, 2.0, 4.0), "popularity": (0.0, 0.5, 1.5, 2.0, 3.0)}
WEIGHTS = {"co_occurrence": (0.0, 0.25, 0.5, 1.0, 2.0, 4.0), "popularity": (0.0, 0.1, 0.2, 0.5, 1.0)}
DAMPINGS = (0.0, 0.5)
ROWS = 1024  # whose spread is computed at a time


@dataclass(frozen=True)
class ScorerWeights:
    """The keys of the harness that say what is added; see utils/config/settings.py."""

    popularity: float = 0.0
    popularity_damping: float = 0.0
    co_occurrence: float = 0.0
    co_occurrence_damping: float = 0.0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> ScorerWeights:
        """Those that a configuration or a checkpoint holds."""
        return cls(**{field.name: float(values[field.name]) for field in fields(cls)})

    @property
    def any(self) -> bool:
        """Whether anything is added."""
        return bool(self.popularity or self.co_occurrence)

    def values(self) -> dict[str, float]:
        """By the name of the key."""
        return asdict(self)

    def effective(self) -> ScorerWeights:
        """The same with dampings of 0 where they damp nothing, for weights that score alike to be equal."""
        return ScorerWeights(
            self.popularity,
            self.popularity_damping if self.popularity else 0.0,
            self.co_occurrence,
            self.co_occurrence_damping if self.co_occurrence else 0.0,
        )

    def choices(self) -> dict[str, list[float]]:
        """What calibration tries of each key, the present value first; of a scorer that alone is off nothing.

        With both off the ladders of `WEIGHTS` are tried, else multiples of the weight.
        """
        found: dict[str, list[float]] = {}
        for name in ("co_occurrence", "popularity"):
            weight, damping = getattr(self, name), getattr(self, f"{name}_damping")
            if weight or not self.any:
                tried = [weight * factor for factor in MULTIPLES[name]] if weight else WEIGHTS[name]
                found[name] = list(dict.fromkeys([weight, *tried]))
                found[f"{name}_damping"] = list(dict.fromkeys([damping, *DAMPINGS]))
        return found


class Scorers:
    """Adds to the scores of a model what `weights` say.

    The score s_ui of user u and item i becomes s_ui + sigma_u (p P_i + c C_ui), where sigma_u is the standard deviation
    of the user's finite scores over items (1 where they are all equal),
    P_i the log popularity of the item, of mean 0 and standard deviation 1 over items, p = `popularity`, and
    C_ui how often others took i together with the user's items, for the 100 items with the largest values, over the mean
    over users of the user's largest value; c = `co_occurrence`. See `log_popularity` and `co_occurring_items` in
    common/spectral.py for both and their dampings.

    Args:
        dataset: its training interactions are counted.
        device: where scores are.
        weights: at first; may be set again at any time.
    """

    def __init__(self, dataset: Dataset, device: torch.device, weights: ScorerWeights) -> None:
        self.dataset, self.device, self.weights = dataset, device, weights
        self._popularity: dict[float, Tensor] = {}  # by damping
        self._co_occurrence: dict[float, tuple[Tensor, Tensor]] = {}

    @staticmethod
    def memory_needed(config: Mapping[str, Any], dataset: Dataset) -> dict[str, int]:
        """What counting takes that may not fit, in words to bytes."""
        weights = ScorerWeights.of(config)
        wanted = weights.co_occurrence or (config["calibration"] and "co_occurrence" in weights.choices())
        what = "pairs of items that users took (co_occurrence: 0 and calibration: false have none)"
        return {what: co_occurrence_bytes(dataset)} if wanted else {}

    def popularity(self, damping: float) -> Tensor:
        """P [I]."""
        if damping not in self._popularity:
            logs = log_popularity(self.dataset, damping).double()
            spread = logs.std(correction=0)
            logs = (logs - logs.mean()) / (spread if spread > 0 else 1)
            self._popularity[damping] = logs.float().to(self.device)
        return self._popularity[damping]

    def co_occurrence(self, damping: float) -> tuple[Tensor, Tensor]:
        """Items, int32 [U, K], and their values of C [U, K]."""
        if damping not in self._co_occurrence:
            items, values = co_occurring_items(self.dataset, damping)
            largest = values.amax(dim=1) if values.shape[1] else values.new_zeros(0)
            largest = largest[largest > 0]
            values = values / (largest.double().mean().float() if len(largest) else 1)
            self._co_occurrence[damping] = items.to(self.device), values.to(self.device)
        return self._co_occurrence[damping]

    def add(self, scores: Tensor, users: Tensor) -> Tensor:
        """`scores` [B, I] of `users` [B], changed in place."""
        weights = self.weights
        if not weights.any:
            return scores
        unit = spread(scores)
        if weights.popularity:
            scores.addr_(unit * weights.popularity, self.popularity(weights.popularity_damping).to(scores))
        if weights.co_occurrence:
            items, values = self.co_occurrence(weights.co_occurrence_damping)
            added = values[users].to(scores) * (unit * weights.co_occurrence)[:, None]
            scores.scatter_add_(1, items[users].long(), added)
        return scores

    def added_to(self, scorer: Scorer) -> Scorer:
        """A scorer whose scores have this added; those of `scorer` must not be needed as they were."""
        return lambda users: self.add(scorer(users), users)


def spread(scores: Tensor) -> Tensor:
    """Standard deviation of the finite scores of each row of [B, I]; 1 where they are equal or there are none."""
    # torch.std takes about ten times as long on a CPU. In blocks, for the differences are as large as the scores.
    norms = [torch.linalg.vector_norm(x - x.mean(dim=1, keepdim=True), dim=1) for x in scores.split(ROWS)]
    deviation = torch.cat(norms) / scores.shape[1] ** 0.5
    odd = (~deviation.isfinite()).nonzero()[:, 0]  # a model may score -inf what it never recommends
    for row in odd.tolist():
        finite = scores[row][scores[row].isfinite()]
        deviation[row] = finite.std(correction=0) if len(finite) else 0
    return deviation.masked_fill_(deviation == 0, 1)
