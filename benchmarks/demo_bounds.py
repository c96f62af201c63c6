"""How far the demo data's test items can be foretold from its training interactions: `python benchmarks/demo_bounds.py`.

Recall@20 on the test items, training items left out, of
- popularity: how many users took the item in training;
- linear: for each user the mean of the true attributes of its training items, as weights of those attributes;
- Bayes: the posterior mean of p(i | u) given the user's training items, by one who knows all attributes of all items and
  the law that users are drawn from (utils/data/synthetic.py), the strength of an interest in six steps;
- oracle: one who knows the users, too.
No model that learns items and users from the training interactions can be expected above Bayes.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

from utils.data.synthetic import TEST, TRAIN, generate
from utils.data.synthetic_spec import SyntheticSpec

K = 20
SHRINKAGE = (
    10.0  # interactions that a linear user's weights are drawn towards 0 by; the best of 0.3, 1, 3, 10 on validation
)
STEPS = 3  # of the absolute weight of an interest


def main() -> None:
    spec = SyntheticSpec()
    data = generate(spec, features=False)
    truth, shape = data.truth, (spec.n_users, spec.n_items)
    taken, wanted = (np.zeros(shape, dtype=bool) for _ in range(2))
    for table, label in ((taken, TRAIN), (wanted, TEST)):
        table[data.users[data.labels == label], data.items[data.labels == label]] = True
    attributes = truth.item_attributes.astype(np.float64)  # [I, A]
    popularity = np.log1p(taken.sum(axis=0))

    centred = attributes - attributes.mean(axis=0)
    weights = taken @ centred / (taken.sum(axis=1, keepdims=True) + SHRINKAGE)
    scores = {
        "popularity": np.tile(popularity, (spec.n_users, 1)),
        "linear": 2 * weights @ attributes.T + popularity,
        "Bayes": predictive(spec, truth.attribute_names, attributes, truth.log_popularity, taken),
        "oracle": truth.scores(np.arange(spec.n_users)),
    }
    for name, table in scores.items():
        print(f"{name:10s} {recall(np.where(taken, -np.inf, table), wanted):.4f}")


def predictive(
    spec: SyntheticSpec, names: tuple[str, ...], attributes: np.ndarray, log_popularity: np.ndarray, taken: np.ndarray
) -> np.ndarray:
    """p(i | the user's training items) [U, I], the draws of a user taken as independent."""
    joint = [k for k, name in enumerate(names) if name.startswith("joint_")]
    plain = [k for k in range(len(names)) if k not in joint]
    sizes = spec.strength * (0.5 + (np.arange(STEPS) + 0.5) / STEPS)
    laws, priors = [], []
    for pool, share in ((plain, 1 - spec.joint_users), (joint, spec.joint_users)):
        kinds = list(itertools.combinations(pool, spec.interests_per_user))
        signed = list(itertools.product([*sizes, *-sizes], repeat=spec.interests_per_user))
        for kind, interest in itertools.product(kinds, signed):
            preference = log_popularity + attributes[:, kind] @ np.array(interest)
            law = np.exp(preference - preference.max())
            laws.append(
                (1 - spec.interaction_noise) * law / law.sum() + spec.interaction_noise * np.exp(log_popularity)
            )
            priors.append(share / len(kinds) / len(signed))
    laws_of_items = np.array(laws)  # [users that could be, I]
    evidence = taken @ np.log(laws_of_items).T + np.log(priors)
    posterior = np.exp(evidence - evidence.max(axis=1, keepdims=True))
    return posterior / posterior.sum(axis=1, keepdims=True) @ laws_of_items


def recall(scores: np.ndarray, wanted: np.ndarray) -> float:
    """Mean Recall@20 of the users that have test items."""
    found = np.take_along_axis(wanted, np.argsort(-scores, axis=1, kind="stable")[:, :K], axis=1).sum(axis=1)
    counts = wanted.sum(axis=1)
    return float((found[counts > 0] / counts[counts > 0]).mean())


if __name__ == "__main__":
    main()
