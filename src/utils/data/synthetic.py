"""Data sets drawn from a planted preference model, with an oracle that knows the truth.

Every item carries hidden signs (+1 or -1, independent and uniform), read off as attributes of three kinds:

- shared: visible in the features of every modality;
- private: visible in one modality only;
- joint: attribute c_j is the product over the modalities m of signs p_j^m, and p_j^m is visible in m only.
  All modalities together tell c_j; fewer say nothing about it, nor does a linear function of all features
  concatenated. With one modality the product has one factor: a joint attribute is then just private.

A user cares about a few attributes k, and takes the next item, among those not taken yet, with probability

    p(i | u) = (1 - noise) * softmax_i(sum_k w_uk a_ik + log popularity_i) + noise * popularity_i

"Joint users" care about joint attributes only, all others about shared and private ones only, so a model
linear in the features learns nothing from them about joint users. `Truth.scores` is log p(i | u): in
expectation no ranking of the items not taken yet is better.

What holds in the `demo` data set, by Recall@20 on the test items: popularity stays below a third of the
oracle, and collaborative filtering lies well between the two; a linear model per user on the true attributes
beats collaborative filtering; for joint users a linear model on one modality's features, or on all of them
concatenated, does not beat popularity, and one on the products of the modalities' signs does.

All draws come from one PCG64 stream, the features last: the interactions are the same with and without them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.data.synthetic_spec import MIN_INTERACTIONS, SyntheticSpec, feature_file
from utils.errors import UserError
from utils.files import atomic_file, make_folder, write_bytes

ACTIVITY_SPREAD = 1.2  # sigma of the log-normal history length: Elec's longest come out at a few hundred, as they are
MAX_ROUNDS = 50  # of redrawing, before the exact fallback
FEATURE_BLOCK = 256  # rows of features made at once
SCORE_BLOCK = 128  # users scored at once
TRAIN, VALID, TEST = 0, 1, 2


@dataclass(frozen=True)
class Truth:
    """The planted model behind a data set.

    Args:
        user_attributes: [U, k] int64, what a user cares about: columns of `item_attributes`, ascending.
        user_weights: [U, k] float32, the signed weight of each, in nats (strength included).
        item_attributes: [I, A] int8, +1 or -1; shared first, then private by modality, then joint.
        attribute_names: the A names: shared_0.., <modality>_0.., joint_0...
        joint_signs: [I, M, n_joint] int8, the signs p^m; their product over M is the joint attribute.
        log_popularity: [I] float64; the popularities sum to 1.
        joint_user: [U] bool, whether the user cares about joint attributes only.
        interaction_noise: share of draws made by popularity alone.
    """

    user_attributes: np.ndarray
    user_weights: np.ndarray
    item_attributes: np.ndarray
    attribute_names: tuple[str, ...]
    joint_signs: np.ndarray
    log_popularity: np.ndarray
    joint_user: np.ndarray
    interaction_noise: float

    def scores(self, users: np.ndarray) -> np.ndarray:
        """True log p(i | u) of every item with none taken yet; ranks those not taken yet as well as can be.

        Args:
            users: [B] user ids.

        Returns:
            [B, I] float32.
        """
        users = np.asarray(users)
        out = np.empty((len(users), len(self.log_popularity)), dtype=np.float32)
        for start in range(0, len(users), SCORE_BLOCK):
            out[start : start + SCORE_BLOCK] = self.log_probability(users[start : start + SCORE_BLOCK])
        return out

    def log_probability(self, users: np.ndarray) -> np.ndarray:
        """The same in float64 and in one piece: users [B] to [B, I]."""
        preference = np.tile(self.log_popularity, (len(users), 1))  # [B, I]
        for k in range(self.user_attributes.shape[1]):
            signs = self.item_attributes[:, self.user_attributes[users, k]].T  # [B, I]
            preference += self.user_weights[users, k, None].astype(np.float64) * signs
        top = preference.max(axis=1, keepdims=True)
        preference -= top + np.log(np.exp(preference - top).sum(axis=1, keepdims=True))
        with np.errstate(divide="ignore"):
            log_share, log_noise = np.log(1 - self.interaction_noise), np.log(self.interaction_noise)
        return np.asarray(np.logaddexp(log_share + preference, log_noise + self.log_popularity))


@dataclass(frozen=True)
class SyntheticData:
    """A generated data set, sorted by user, each user's items in split order.

    Args:
        users: [E] int64, ascending, 0 to U - 1, every one of them.
        items: [E] int64, 0 to I - 1, the last one among them; no (user, item) pair twice.
        labels: [E] int8, 0 train, 1 valid, 2 test.
        features: [I, F] float32 per modality; empty if switched off.
        truth: the planted model.
    """

    users: np.ndarray
    items: np.ndarray
    labels: np.ndarray
    features: dict[str, np.ndarray]
    truth: Truth


def generate(spec: SyntheticSpec, features: bool = True) -> SyntheticData:
    """Draw a data set from the planted model; the same spec gives the same bytes.

    Args:
        spec: what to draw.
        features: whether to make the item features; all else is the same either way.

    Returns:
        The data set with its truth.
    """
    rng = np.random.Generator(np.random.PCG64(spec.seed))
    truth = _plant(rng, spec)
    counts = _interaction_counts(rng, spec)
    users, items = _draw_interactions(rng, truth, counts)
    items, truth = _last_item_occurs(items, truth)
    order = np.lexsort((rng.random(len(users)), users))
    made = {name: _features(rng, spec, truth, m) for m, name in enumerate(spec.feature_dims)} if features else {}
    return SyntheticData(users[order], items[order], _split_labels(counts), made, truth)


def write(data: SyntheticData, folder: Path) -> None:
    """Write <folder name>.inter (tab separated userID, itemID, x_label) and one <name>_feat.npy per modality.

    Each file appears whole or not at all, the .inter last: a folder that has it is complete.

    Args:
        data: the data set.
        folder: where to; made if it is missing.

    Raises:
        UserError: the .inter is already there, or nothing can be written.
    """
    folder = Path(folder).resolve()
    target = folder / f"{folder.name}.inter"
    if target.exists():
        raise UserError(f"{target} is already there: delete it or choose another folder")
    make_folder(folder)
    for name, values in data.features.items():
        with atomic_file(folder / feature_file(name)) as file:
            np.save(file, values, allow_pickle=False)
    rows = zip(data.users.tolist(), data.items.tolist(), data.labels.tolist(), strict=True)
    text = "userID\titemID\tx_label\n" + "".join(f"{user}\t{item}\t{label}\n" for user, item, label in rows)
    write_bytes(target, text.encode("ascii"))


def _plant(rng: np.random.Generator, spec: SyntheticSpec) -> Truth:
    """Draw the items' attributes and popularity and the users' interests."""
    n_modalities = len(spec.feature_dims)
    n_plain = spec.n_shared + n_modalities * spec.n_private
    plain = _random_signs(rng, (spec.n_items, n_plain))
    joint_signs = _random_signs(rng, (spec.n_items, n_modalities, spec.n_joint))
    log_popularity = -spec.popularity_exponent * np.log(1 + rng.permutation(spec.n_items))
    joint_user = rng.permutation(spec.n_users) < round(spec.joint_users * spec.n_users)
    interests = np.empty((spec.n_users, spec.interests_per_user), dtype=np.int64)
    for chosen, first, size in ((~joint_user, 0, n_plain), (joint_user, n_plain, spec.n_joint)):
        if chosen.any():
            order = rng.random((int(chosen.sum()), size)).argsort(axis=1)
            interests[chosen] = first + np.sort(order[:, : spec.interests_per_user], axis=1)
    weights = spec.strength * rng.uniform(0.5, 1.5, interests.shape) * _random_signs(rng, interests.shape)
    names = [f"shared_{j}" for j in range(spec.n_shared)]
    names += [f"{name}_{j}" for name in spec.feature_dims for j in range(spec.n_private)]
    names += [f"joint_{j}" for j in range(spec.n_joint)]
    return Truth(
        user_attributes=interests,
        user_weights=weights.astype(np.float32),
        item_attributes=np.concatenate([plain, joint_signs.prod(axis=1, dtype=np.int8)], axis=1),
        attribute_names=tuple(names),
        joint_signs=joint_signs,
        log_popularity=log_popularity - np.log(np.exp(log_popularity).sum()),
        joint_user=joint_user,
        interaction_noise=float(spec.interaction_noise),
    )


def _random_signs(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return 2 * rng.integers(0, 2, shape, dtype=np.int8) - 1


def _interaction_counts(rng: np.random.Generator, spec: SyntheticSpec) -> np.ndarray:
    """[U] interactions per user: 5 plus a heavy-tailed share of the rest, below n_items; the sum is exact."""
    activity = rng.lognormal(sigma=ACTIVITY_SPREAD, size=spec.n_users)
    counts = np.full(spec.n_users, MIN_INTERACTIONS, dtype=np.int64)
    while (left := spec.n_interactions - int(counts.sum())) > 0:
        room = activity * (counts < spec.n_items - 1)
        counts = np.minimum(counts + rng.multinomial(left, room / room.sum()), spec.n_items - 1)
    return counts


def _draw_interactions(rng: np.random.Generator, truth: Truth, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw each user's items without replacement: users [E] and items [E], in no order of use."""
    groups, group = np.unique(truth.user_attributes, axis=0, return_inverse=True)
    group = group.reshape(-1)  # numpy 2.0 returned [U, 1]
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    drawn = [_draw_group(rng, truth, counts, *pair) for pair in zip(members, groups, strict=True)]
    return np.concatenate([users for users, _ in drawn]), np.concatenate([items for _, items in drawn])


def _draw_group(
    rng: np.random.Generator, truth: Truth, counts: np.ndarray, users: np.ndarray, interests: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draw for the users [B] who care about the attributes `interests` [k].

    To them items of one sign pattern (a cell) differ in popularity alone: draw the cell, then the item.
    Independent draws whose repeats are dropped, and as many redrawn as are missing, are draws without
    replacement. Who still misses items after MAX_ROUNDS gets those of largest log-probability plus Gumbel
    noise, which has the same distribution.
    """
    n_items, counts = len(truth.log_popularity), counts[users]
    bits = 1 << np.arange(len(interests))
    item_pattern = (truth.item_attributes[:, interests] > 0) @ bits  # [I]
    pattern, cell = np.unique(item_pattern, return_inverse=True)  # [C], [I]
    by_cell = np.argsort(cell, kind="stable")
    edges = np.searchsorted(cell[by_cell], np.arange(len(pattern) + 1))  # [C+1], each cell's start in by_cell
    below = np.concatenate([[0.0], np.cumsum(np.exp(truth.log_popularity[by_cell]))])  # [I+1]
    signs = np.where(pattern & bits[:, None], 1.0, -1.0)  # [k, C]
    logits = truth.user_weights[users].astype(np.float64) @ signs  # [B, C]
    ladder = np.cumsum(np.exp(logits - logits.max(axis=1, keepdims=True)) * np.diff(below[edges]), axis=1)
    ladder /= ladder[:, -1:]  # ends at 1 exactly: the next user's part starts there
    ladder = (ladder + np.arange(len(users))[:, None]).reshape(-1)  # [B*C], ascending across users too

    found, missing = np.empty(0, dtype=np.int64), counts
    for _ in range(MAX_ROUNDS):
        if not missing.any():
            break
        row = np.repeat(np.arange(len(users)), missing)
        step = np.searchsorted(ladder, row + rng.random(len(row)), side="right") - row * len(pattern)
        step = np.minimum(step, len(pattern) - 1)  # rounding may leave the user's part of the ladder
        by_popularity = rng.random(len(row)) < truth.interaction_noise
        first = np.where(by_popularity, 0, edges[step])
        last = np.where(by_popularity, n_items, edges[step + 1]) - 1
        height = below[first] + rng.random(len(row)) * (below[last + 1] - below[first])
        place = np.clip(np.searchsorted(below, height, side="right") - 1, first, last)
        found = np.unique(np.concatenate([found, row * n_items + by_cell[place]]))
        missing = counts - np.bincount(found // n_items, minlength=len(users))
    parts = [found]
    for late in np.flatnonzero(missing):
        keys = truth.log_probability(users[late : late + 1])[0] + rng.gumbel(size=n_items)
        taken = slice(*np.searchsorted(found, [late * n_items, (late + 1) * n_items]))
        keys[found[taken] % n_items] = -np.inf
        parts.append(late * n_items + np.argpartition(-keys, missing[late] - 1)[: missing[late]])
    found = np.concatenate(parts)
    return users[found // n_items], found % n_items


def _last_item_occurs(items: np.ndarray, truth: Truth) -> tuple[np.ndarray, Truth]:
    """Swap the last item with the largest id that occurs, as readers take the number of items from that."""
    relabel = np.arange(len(truth.log_popularity))
    relabel[[items.max(), -1]] = relabel[[-1, items.max()]]
    names = ("item_attributes", "joint_signs", "log_popularity")
    per_item = {name: getattr(truth, name)[relabel] for name in names}
    return relabel[items], dataclasses.replace(truth, **per_item)


def _split_labels(counts: np.ndarray) -> np.ndarray:
    """[E] labels of each user's items in order: the last fifth, at least two, is held out, half for valid."""
    held_out = np.where(counts < 10, 2, counts // 5)
    from_end = np.repeat(np.cumsum(counts), counts) - np.arange(counts.sum())  # 1 for a user's last item
    labels = np.where(from_end <= np.repeat(held_out, counts), VALID, TRAIN)
    labels[from_end <= np.repeat(held_out - held_out // 2, counts)] = TEST
    return labels.astype(np.int8)


def _features(rng: np.random.Generator, spec: SyntheticSpec, truth: Truth, modality: int) -> np.ndarray:
    """[I, F] float32: a linear mix of the visible signs, plus noise and an offset per dimension."""
    private = spec.n_shared + modality * spec.n_private
    plain = truth.item_attributes[:, np.r_[0 : spec.n_shared, private : private + spec.n_private]]
    visible = np.concatenate([plain, truth.joint_signs[:, modality]], axis=1).astype(np.float32)  # [I, S]
    dim, n_signs = list(spec.feature_dims.values())[modality], visible.shape[1]
    mixing = rng.standard_normal((n_signs, dim), dtype=np.float32) / np.float32(np.sqrt(n_signs))
    offset = rng.standard_normal(dim, dtype=np.float32)  # features of trained networks are not centred either
    out = np.empty((spec.n_items, dim), dtype=np.float32)
    for start in range(0, spec.n_items, FEATURE_BLOCK):
        block = out[start : start + FEATURE_BLOCK]
        rng.standard_normal(dtype=np.float32, out=block)
        block *= np.float32(spec.feature_noise)
        block += offset
        for signs, direction in zip(visible[start : start + FEATURE_BLOCK].T, mixing, strict=True):
            block += signs[:, None] * direction  # the last bits of a matrix product depend on the machine
    return out
