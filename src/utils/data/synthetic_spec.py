"""What is generated: sizes, attributes and noise of a synthetic data set, as typed keys, and some ready ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from utils.config.schema import check_value, keys_of, setting
from utils.errors import UserError, nearest

MIN_INTERACTIONS = 5  # per user, as the public data sets are filtered
FEATURE_FILES = {"visual": "image_feat.npy", "textual": "text_feat.npy", "acoustic": "audio_feat.npy"}


def feature_file(modality: str) -> str:
    """File name of a modality's features: image_feat.npy for visual, <modality>_feat.npy by default."""
    return FEATURE_FILES.get(modality, f"{modality}_feat.npy")


@dataclass(frozen=True)
class SyntheticSpec:
    """What to generate; the defaults are the `demo` data set.

    Every user has at least 5 interactions; items without interactions stay isolated.

    Raises:
        UserError: with a line for each value that is wrong.
    """

    n_users: int = setting("number of users U", low=1, default=1200)
    n_items: int = setting("number of items I", low=MIN_INTERACTIONS + 1, default=500)
    n_interactions: int = setting(
        "number of interactions E over the three splits, from 5 U to U (I - 1)", low=MIN_INTERACTIONS, default=14_400
    )
    feature_dims: dict[str, int] = setting(
        "features F of each modality, in the order in which the modalities are drawn",
        low=1,
        default={"visual": 64, "textual": 32},
    )
    n_shared: int = setting("number of attributes visible in every modality", low=0, default=2)
    n_private: int = setting("number of attributes visible in one modality only, for each modality", low=0, default=2)
    n_joint: int = setting("number of attributes that only all modalities together tell", low=0, default=5)
    interests_per_user: int = setting("number of distinct attributes a user cares about", low=1, high=8, default=3)
    joint_users: float = setting("share of the users who care about joint attributes only", low=0, high=1, default=0.5)
    strength: float = setting(
        "mean absolute weight of an interest, in nats; each is 0.5 to 1.5 times this", low=0, high=50, default=2.0
    )
    popularity_exponent: float = setting(
        "popularity is proportional to rank^-exponent; 0: all alike", low=0, high=5, default=0.4
    )
    interaction_noise: float = setting("share of draws made by popularity alone", low=0, high=1, default=0.1)
    feature_noise: float = setting(
        "standard deviation of the features' noise over that of their signal", low=0, high=1000, default=0.5
    )
    seed: int = setting("seed of all draws", low=0, default=0)

    def __post_init__(self) -> None:
        problems = []
        for key in keys_of(SyntheticSpec).values():
            try:
                object.__setattr__(self, key.name, check_value(key, getattr(self, key.name)))
            except ValueError as error:
                problems.append(f"{key.name}: {error}")
        problems = problems or self._contradictions()
        if problems:
            raise UserError(*problems)

    def _contradictions(self) -> list[str]:
        low, high = MIN_INTERACTIONS * self.n_users, self.n_users * (self.n_items - 1)
        n_plain, k = self.n_shared + len(self.feature_dims) * self.n_private, self.interests_per_user
        if not self.feature_dims:
            return ["feature_dims: expected a size for at least one modality, got {}"]
        wrong = [
            f"feature_dims: modality {name!r} names a file, expected a letter, then letters, digits or _"
            for name in self.feature_dims
            if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name)
        ]
        if len({feature_file(name) for name in self.feature_dims}) < len(self.feature_dims):
            wrong.append(f"feature_dims: two of {', '.join(self.feature_dims)} share a feature file, rename one")
        if not low <= self.n_interactions <= high:
            wrong.append(
                f"n_interactions: expected {low} to {high} for {self.n_users} users and {self.n_items} items, got "
                f"{self.n_interactions}"
            )
        if self.joint_users > 0 and self.n_joint < k:
            wrong.append(f"n_joint: expected at least {k}, the interests of joint users, got {self.n_joint}")
        if self.joint_users < 1 and n_plain < k:
            wrong.append(f"n_shared, n_private: {n_plain} attributes, expected at least {k}, the interests of a user")
        return wrong


def synthetic_spec(content: Mapping[str, Any], base: SyntheticSpec | None = None) -> SyntheticSpec:
    """What to generate, from the keys of `synthetic` laid over `base`; None: over the defaults.

    Raises:
        UserError: for an unknown key or a value out of range.
    """
    known = list(keys_of(SyntheticSpec))
    if unknown := [name for name in content if name not in known]:
        raise UserError(*(f"synthetic: unknown key '{name}'{nearest(name, known)}" for name in unknown))
    try:
        return SyntheticSpec(**{**(asdict(base) if base else {}), **content})
    except UserError as error:
        raise UserError(*(f"synthetic: {problem}" for problem in error.problems)) from None


def _amazon_like(n_users: int, n_items: int, n_interactions: int) -> SyntheticSpec:
    return SyntheticSpec(
        n_users=n_users,
        n_items=n_items,
        n_interactions=n_interactions,
        feature_dims={"visual": 4096, "textual": 384},
        n_shared=8,
        n_private=6,
        n_joint=8,
        popularity_exponent=0.5,
    )


SIZES: dict[str, SyntheticSpec] = {
    "demo": SyntheticSpec(),
    "baby": _amazon_like(19_445, 7_050, 160_792),
    "sports": _amazon_like(35_598, 18_357, 296_337),
    "elec": _amazon_like(192_403, 63_001, 1_689_188),
}
