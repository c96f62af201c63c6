"""Planted data sets: sizes, split, the law of the draws, what features tell, what the demo is good for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from helpers import problems_of
from scipy.stats import chi2

from utils.data import synthetic
from utils.data.synthetic import SyntheticData, Truth, generate, write
from utils.data.synthetic_spec import SIZES, SyntheticSpec
from utils.errors import UserError

SMALL = SyntheticSpec(n_users=60, n_items=40, n_interactions=600, feature_dims={"visual": 6, "textual": 4})
ODD = {
    "as sparse as can be": dataclasses.replace(SMALL, n_interactions=300),
    "all but one item each": dataclasses.replace(SMALL, n_interactions=60 * 39),
    "nearly full": dataclasses.replace(SMALL, n_interactions=60 * 37),
    "one user": dataclasses.replace(SMALL, n_users=1, n_interactions=5),
    "most items isolated": dataclasses.replace(SMALL, n_users=3, n_items=2000, n_interactions=20),
    "only joint users": dataclasses.replace(SMALL, joint_users=1.0, n_shared=0, n_private=0),
    "no joint users": dataclasses.replace(SMALL, joint_users=0.0, n_joint=0),
    "popularity alone": dataclasses.replace(SMALL, interaction_noise=1.0),
    "preference alone, strong": dataclasses.replace(SMALL, interaction_noise=0.0, strength=50.0),
    "one modality": dataclasses.replace(SMALL, feature_dims={"acoustic": 3}),
    "three modalities": dataclasses.replace(SMALL, feature_dims={"visual": 3, "textual": 1, "acoustic": 300}),
    "eight interests": dataclasses.replace(SMALL, interests_per_user=8, n_joint=8, n_shared=8),
}


@pytest.fixture(scope="module")
def demo() -> SyntheticData:
    return generate(SIZES["demo"])


def arrays(data: SyntheticData) -> dict[str, bytes]:
    truth = {name: value for name, value in vars(data.truth).items() if isinstance(value, np.ndarray)}
    everything = {"users": data.users, "items": data.items, "labels": data.labels, **data.features, **truth}
    return {name: value.tobytes() for name, value in everything.items()}


# Sizes and split


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    first, again = arrays(generate(SMALL)), arrays(generate(SMALL))
    other = arrays(generate(dataclasses.replace(SMALL, seed=1)))
    assert first == again
    same = {name for name in first if first[name] == other[name]}
    assert same <= {"users"}, "all but the user column depends on the seed"


def test_features_can_be_left_out_without_changing_the_rest():
    with_features, without = generate(SMALL), generate(SMALL, features=False)
    assert without.features == {}
    expected = arrays(dataclasses.replace(with_features, features={}))
    assert arrays(without) == expected


@pytest.mark.parametrize("name", ODD)
def test_counts_are_exact_and_every_array_has_its_shape(name):
    spec = ODD[name]
    data = generate(spec)
    truth, n_modalities = data.truth, len(spec.feature_dims)
    assert data.users.shape == data.items.shape == data.labels.shape == (spec.n_interactions,)
    assert (data.users.dtype, data.items.dtype, data.labels.dtype) == (np.int64, np.int64, np.int8)
    assert (np.diff(data.users) >= 0).all()
    counts = np.bincount(data.users)
    assert len(counts) == spec.n_users
    assert counts.min() >= 5
    assert counts.max() < spec.n_items
    assert (data.items.min() >= 0, data.items.max()) == (True, spec.n_items - 1)
    assert len(np.unique(data.users * spec.n_items + data.items)) == spec.n_interactions, "a pair occurs twice"
    n_attributes = spec.n_shared + n_modalities * spec.n_private + spec.n_joint
    assert truth.user_attributes.shape == truth.user_weights.shape == (spec.n_users, spec.interests_per_user)
    assert truth.item_attributes.shape == (spec.n_items, n_attributes)
    assert set(np.unique(truth.item_attributes)) == {-1, 1}
    assert len(set(truth.attribute_names)) == len(truth.attribute_names) == n_attributes
    np.testing.assert_array_equal(
        truth.joint_signs.prod(axis=1), truth.item_attributes[:, n_attributes - spec.n_joint :]
    )
    assert list(data.features) == list(spec.feature_dims)
    for modality, dim in spec.feature_dims.items():
        values = data.features[modality]
        assert (values.shape, values.dtype, values.flags.c_contiguous) == (
            (spec.n_items, dim),
            np.float32,
            True,
        )
        assert np.isfinite(values).all()


def test_interests_are_distinct_and_of_the_user_s_kind(demo):
    spec, truth = SIZES["demo"], demo.truth
    assert truth.joint_user.sum() == round(spec.joint_users * spec.n_users)
    assert (np.diff(truth.user_attributes, axis=1) > 0).all()
    names = np.array(truth.attribute_names)[truth.user_attributes]
    is_joint = np.char.startswith(names, "joint_")
    np.testing.assert_array_equal(is_joint, np.repeat(truth.joint_user[:, None], spec.interests_per_user, axis=1))
    assert set(np.unique(names)) == set(truth.attribute_names)
    strength = np.abs(truth.user_weights)
    assert strength.min() >= 0.5 * spec.strength
    assert strength.max() <= 1.5 * spec.strength
    assert abs((truth.user_weights > 0).mean() - 0.5) < 0.05


def test_split_follows_the_rule_of_the_public_data_sets():
    data = generate(dataclasses.replace(SMALL, n_users=400, n_items=200, n_interactions=5000))
    counts = np.bincount(data.users)
    assert {5, 9, 10, 14, 15, 19, 20} <= set(counts.tolist()), "the cases where the rule changes"
    expected = []
    for n in counts.tolist():
        if n < 10:
            n_valid = n_test = 1
        else:
            held_out = int(n * 2 // 10)
            n_valid = held_out // 2
            n_test = held_out - n_valid
        expected += [0] * (n - n_valid - n_test) + [1] * n_valid + [2] * n_test
    assert data.labels.tolist() == expected


def test_held_out_items_are_chosen_at_random(demo):
    spread = demo.items.std() / np.sqrt((demo.labels == 2).sum())
    log_popularity = demo.truth.log_popularity[demo.items]
    for values, error in (
        (demo.items, spread),
        (log_popularity, log_popularity.std() / np.sqrt((demo.labels == 2).sum())),
    ):
        assert abs(values[demo.labels == 2].mean() - values[demo.labels == 0].mean()) < 4 * error


def test_last_item_takes_over_everything_of_the_one_it_is_swapped_with():
    truth = generate(SMALL, features=False).truth
    items, swapped = synthetic._last_item_occurs(np.array([0, 7, 3]), truth)
    assert items.tolist() == [0, 39, 3]
    for name in ("item_attributes", "joint_signs", "log_popularity"):
        before, after = getattr(truth, name), getattr(swapped, name)
        np.testing.assert_array_equal(after[39], before[7])
        np.testing.assert_array_equal(after[7], before[39])
        np.testing.assert_array_equal(after[8:39], before[8:39])


def test_baby_size_has_baby_s_counts_and_long_tails():
    data = generate(SIZES["baby"], features=False)
    per_user, per_item = np.bincount(data.users), np.bincount(data.items)
    assert (len(per_user), len(per_item), len(data.users)) == (19_445, 7_050, 160_792)
    assert len(np.unique(data.users * 7_050 + data.items)) == 160_792
    assert per_user.min() == 5
    assert per_user.max() > 10 * per_user.mean()
    assert per_item.max() > 10 * per_item.mean()
    assert np.median(per_item) < 0.8 * per_item.mean()


# The law of the draws


def test_scores_are_the_logarithm_of_the_mixture(demo):
    truth, users = demo.truth, np.array([0, 5, 1199, 5])
    scores = truth.scores(users)
    assert (scores.dtype, scores.shape) == (np.float32, (4, 500))
    popularity = np.exp(truth.log_popularity)
    assert popularity.sum() == pytest.approx(1)
    for row, user in zip(scores, users, strict=True):
        weight = popularity.copy()
        for attribute, w in zip(truth.user_attributes[user], truth.user_weights[user], strict=True):
            weight *= np.exp(float(w) * truth.item_attributes[:, attribute])
        expected = 0.9 * weight / weight.sum() + 0.1 * popularity
        np.testing.assert_allclose(np.exp(row.astype(np.float64)), expected, rtol=1e-5)


def test_scores_do_not_depend_on_the_block(demo):
    n = synthetic.SCORE_BLOCK + 3
    together = demo.truth.scores(np.arange(n))
    np.testing.assert_array_equal(together[-5:], demo.truth.scores(np.arange(n - 5, n)))


def set_probabilities(first: np.ndarray, size: int) -> dict[int, np.ndarray]:
    """Probability per user [U] of each set (bit mask) of `size` items drawn one by one without replacement.

    Args:
        first: [U, I] probabilities of the first draw.
    """
    n_items = first.shape[1]
    reached = {0: np.ones(len(first))}
    for mask in range(2**n_items):
        if mask in reached and mask.bit_count() < size:
            left = 1 - sum((first[:, i] for i in range(n_items) if mask >> i & 1), np.zeros(len(first)))
            for i in range(n_items):
                if not mask >> i & 1:
                    step = reached[mask] * first[:, i] / left
                    reached[mask | 1 << i] = reached.get(mask | 1 << i, 0) + step
    return {mask: p for mask, p in reached.items() if mask.bit_count() == size}


def misfit(data: SyntheticData, truth: Truth) -> tuple[float, int]:
    """Chi-square of the sets drawn, per kind of user and signs of the weights, and its degrees of freedom."""
    n_users = len(truth.joint_user)
    drawn = np.bincount(data.users, weights=1 << data.items, minlength=n_users).astype(int)  # [U], a bit per item
    probabilities = set_probabilities(np.exp(truth.log_probability(np.arange(n_users))), size=5)
    kind = truth.joint_user * 4 + (truth.user_weights > 0) @ np.array([1, 2])
    statistic, cells = 0.0, 0
    for k in range(8):
        for mask, p in probabilities.items():
            expected = p[kind == k].sum()
            statistic += ((drawn[kind == k] == mask).sum() - expected) ** 2 / expected
            cells += 1
    return statistic, cells - 8


@pytest.mark.parametrize("rounds", [50, 1, 0], ids=["redrawing", "one round, then exact", "exact fallback"])
@pytest.mark.slow
def test_sets_of_items_occur_as_often_as_sequential_draws_without_replacement_say(rounds, monkeypatch):
    monkeypatch.setattr(synthetic, "MAX_ROUNDS", rounds)
    spec = SyntheticSpec(
        n_users=15_000,
        n_items=8,
        n_interactions=75_000,
        n_shared=2,
        n_private=0,
        n_joint=2,
        interests_per_user=2,
        strength=0.8,
        popularity_exponent=1.0,
        interaction_noise=0.4,
        seed=3,
    )
    data = generate(spec, features=False)
    statistic, freedom = misfit(data, data.truth)
    assert statistic < chi2.ppf(0.999, freedom)
    truth = data.truth
    wrong = {
        "no noise": dataclasses.replace(truth, interaction_noise=0.0),
        "flipped weights": dataclasses.replace(truth, user_weights=-truth.user_weights),
        "flat popularity": dataclasses.replace(truth, log_popularity=np.full(8, -np.log(8))),
    }
    for name, other in wrong.items():
        assert misfit(data, other)[0] > 2 * freedom, f"the test cannot tell the truth from: {name}"


# What the features tell


def r_squared(x: np.ndarray, y: np.ndarray) -> float:
    """Share of the variance of y that a linear function of x, fitted on one half, explains on the other."""
    half = len(x) // 2
    predicted = linear_read(x, y)
    return float(1 - ((y - predicted)[half:] ** 2).mean() / y[half:].var())


def linear_read(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    half = len(x) // 2
    x = np.concatenate([x.astype(np.float64), np.ones((len(x), 1))], axis=1)
    return x @ np.linalg.solve(x[:half].T @ x[:half], x[:half].T @ y[:half])


def test_each_kind_of_attribute_is_visible_where_it_should_be():
    spec = SyntheticSpec(n_users=10, n_items=3000, n_interactions=60, feature_noise=0.3)
    data = generate(spec)
    truth, visual, textual = data.truth, data.features["visual"], data.features["textual"]
    attributes = truth.item_attributes.astype(np.float64)
    by_modality = {"visual": visual, "textual": textual}
    everything = np.concatenate([visual, textual], axis=1)
    for name, values in zip(truth.attribute_names, attributes.T, strict=True):
        kind, number = name.rsplit("_", 1)
        read = {modality: r_squared(x, values) for modality, x in by_modality.items()}
        if kind == "shared":
            assert min(read.values()) > 0.9, name
        elif kind == "joint":
            signs = truth.joint_signs[:, :, int(number)].astype(np.float64)
            assert max(*read.values(), r_squared(everything, values)) < 0.02, name
            assert r_squared(visual, signs[:, 1]) < 0.02, name
            assert r_squared(textual, signs[:, 0]) < 0.02, name
            product = linear_read(visual, signs[:, 0]) * linear_read(textual, signs[:, 1])
            assert r_squared(product[:, None], values) > 0.9, name
        else:
            other = "textual" if kind == "visual" else "visual"
            assert read[kind] > 0.9, name
            assert read[other] < 0.02, name


def test_features_are_a_linear_mix_plus_noise_of_the_asked_size_plus_an_offset():
    spec = SyntheticSpec(n_users=10, n_items=3000, n_interactions=60, feature_dims={"visual": 200, "audio": 150})
    noisy, clean = generate(spec), generate(dataclasses.replace(spec, feature_noise=0.0))
    signs = spec.n_shared + spec.n_private + spec.n_joint
    for modality, values in clean.features.items():
        assert np.linalg.matrix_rank((values - values[0])[:500]) == signs
        assert values.std(axis=0).mean() == pytest.approx(1, abs=0.1)
        assert np.abs(values.mean(axis=0)).mean() > 0.5, "not centred"
        noise = noisy.features[modality] - values
        assert noise.std() == pytest.approx(spec.feature_noise, rel=0.01)
        halves = (
            noise[: synthetic.FEATURE_BLOCK],
            noise[synthetic.FEATURE_BLOCK : 2 * synthetic.FEATURE_BLOCK],
        )
        assert abs(np.corrcoef(halves[0].ravel(), halves[1].ravel())[0, 1]) < 0.02, "blocks repeat their noise"


def test_with_one_modality_a_joint_attribute_is_visible_there():
    spec = SyntheticSpec(n_users=10, n_items=2000, n_interactions=60, feature_dims={"visual": 64}, n_joint=3)
    data = generate(spec)
    assert min(r_squared(data.features["visual"], y) for y in data.truth.item_attributes.T.astype(float)) > 0.9


# What the demo is good for


def train_matrix(data: SyntheticData) -> np.ndarray:
    out = np.zeros((len(data.truth.joint_user), len(data.truth.log_popularity)))
    out[data.users[data.labels == 0], data.items[data.labels == 0]] = 1
    return out  # [U, I]


def recall(data: SyntheticData, scores: np.ndarray, k: int = 20) -> np.ndarray:
    """[U] share of each user's test items among the k best scored that are not training items."""
    scores = np.where(train_matrix(data) > 0, -np.inf, scores)
    hit = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(hit, np.argpartition(-scores, k, axis=1)[:, :k], True, axis=1)
    test = data.labels == 2
    users, items = data.users[test], data.items[test]
    return np.bincount(users, hit[users, items]) / np.bincount(users)


def popularity_scores(data: SyntheticData) -> np.ndarray:
    train = train_matrix(data)
    return np.tile(np.log1p(train.sum(axis=0)), (len(train), 1))


def item_regression_scores(data: SyntheticData, ridge: float = 300.0) -> np.ndarray:
    """Ridge regression of each item on the others, closed form: a plain and good collaborative model."""
    train = train_matrix(data)
    inverse = np.linalg.inv(train.T @ train + ridge * np.eye(train.shape[1]))
    weights = -inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    return train @ weights


def linear_content_scores(data: SyntheticData, x: np.ndarray) -> np.ndarray:
    """A linear discriminant per user: the mean of the training items against that of all interactions."""
    train = train_matrix(data)
    share = train.sum(axis=0) / train.sum()
    x = x - share @ x
    covariance = (share[:, None] * x).T @ x + 1e-6 * np.eye(x.shape[1])
    weights = (train @ x) @ np.linalg.inv(covariance) / (train.sum(axis=1, keepdims=True) + 1)
    return 2 * weights @ x.T + popularity_scores(data)


def principal(x: np.ndarray, rank: int) -> np.ndarray:
    x = (x - x.mean(axis=0)).astype(np.float64)
    return x @ np.linalg.eigh(x.T @ x)[1][:, -rank:]


def test_demo_oracle_beats_popularity_with_collaborative_filtering_between(demo):
    oracle = recall(demo, demo.truth.scores(np.arange(1200))).mean()
    popular = recall(demo, popularity_scores(demo)).mean()
    collaborative = recall(demo, item_regression_scores(demo)).mean()
    content = recall(demo, linear_content_scores(demo, demo.truth.item_attributes.astype(float))).mean()
    assert 0.35 < oracle < 0.55
    assert popular < oracle / 3
    assert 0.35 * oracle < collaborative < 0.6 * oracle
    assert collaborative > 1.4 * popular
    assert collaborative * 1.1 < content < 0.9 * oracle


def test_demo_joint_users_need_products_of_the_modalities(demo):
    spec, joint = SIZES["demo"], demo.truth.joint_user
    n_visible = spec.n_shared + spec.n_private + spec.n_joint
    visual, textual = (principal(values, n_visible) for values in demo.features.values())
    both = principal(np.concatenate(list(demo.features.values()), axis=1), 2 * n_visible - spec.n_shared)
    popular = recall(demo, popularity_scores(demo))
    linear = {"visual": visual, "textual": textual, "both": both}
    read = {name: recall(demo, linear_content_scores(demo, x)) for name, x in linear.items()}
    for name in linear:
        assert read[name][joint].mean() < popular[joint].mean(), name
        assert read[name][~joint].mean() > popular[~joint].mean() * 1.2, f"{name}: the reader itself works"
    products = recall(demo, linear_content_scores(demo, demo.truth.joint_signs.prod(axis=1).astype(float)))
    assert products[joint].mean() > popular[joint].mean() * 2
    assert products[joint].mean() > recall(demo, item_regression_scores(demo))[joint].mean()


def test_no_disturbed_ranking_beats_the_oracle(demo):
    rng = np.random.default_rng(0)
    scores = demo.truth.scores(np.arange(1200))
    disturbed = [recall(demo, scores + size * rng.standard_normal(scores.shape)).mean() for size in (0, 0.5, 1, 2, 4)]
    assert disturbed == sorted(disturbed, reverse=True)
    assert disturbed[0] > 1.03 * disturbed[1]


# Errors and files


@pytest.mark.parametrize(
    ("field", "value", "line"),
    [
        ("n_users", 2.5, "n_users: expected an integer of at least 1, got 2.5"),
        ("n_items", 5, "n_items: expected an integer of at least 6, got 5"),
        ("strength", float("nan"), "strength: expected a number from 0 to 50, got nan"),
        (
            "feature_dims",
            ["visual"],
            "feature_dims: expected a mapping of words to integers of at least 1, got ['visual']",
        ),
        ("feature_dims", {}, "feature_dims: expected a size for at least one modality, got {}"),
        (
            "feature_dims",
            {"../a": 3},
            "feature_dims: modality '../a' names a file, expected a letter, then letters, digits or _",
        ),
        (
            "feature_dims",
            {"visual": 3, "image": 3},
            "feature_dims: two of visual, image share a feature file, rename one",
        ),
        ("n_interactions", 299, "n_interactions: expected 300 to 2340 for 60 users and 40 items, got 299"),
        ("n_interactions", 2341, "n_interactions: expected 300 to 2340 for 60 users and 40 items, got 2341"),
        ("n_joint", 2, "n_joint: expected at least 3, the interests of joint users, got 2"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_named(field, value, line):
    assert problems_of(lambda: dataclasses.replace(SMALL, **{field: value})) == [line]


def test_all_that_is_wrong_is_said_at_once():
    wrong = {"n_users": -1, "strength": -2, "joint_users": 2, "feature_dims": {"visual": -3}}
    found = problems_of(lambda: SyntheticSpec(**wrong))
    assert [line.partition(":")[0] for line in found] == ["n_users", "feature_dims", "joint_users", "strength"]
    found = problems_of(lambda: SyntheticSpec(n_interactions=1000, n_joint=1, n_shared=1, n_private=0))
    assert [line.partition(":")[0] for line in found] == ["n_interactions", "n_joint", "n_shared, n_private"]


def test_written_files_read_back_the_same(tmp_path):
    folder = tmp_path / "new" / "toy"
    data = generate(dataclasses.replace(SMALL, feature_dims={"visual": 3, "textual": 2, "acoustic": 2, "tags": 1}))
    write(data, folder)
    names = ["audio_feat.npy", "image_feat.npy", "tags_feat.npy", "text_feat.npy", "toy.inter"]
    assert sorted(path.name for path in folder.iterdir()) == names
    table = pd.read_csv(folder / "toy.inter", sep="\t")
    assert list(table.columns) == ["userID", "itemID", "x_label"]
    for column, values in zip(table.columns, (data.users, data.items, data.labels), strict=True):
        np.testing.assert_array_equal(table[column].to_numpy(), values)
    for name, file in (("visual", "image"), ("textual", "text"), ("acoustic", "audio"), ("tags", "tags")):
        read = np.load(folder / f"{file}_feat.npy", allow_pickle=False)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, data.features[name])


def test_a_written_data_set_is_not_overwritten(tmp_path):
    write(generate(SMALL), tmp_path / "toy")
    before = {path.name: path.read_bytes() for path in (tmp_path / "toy").iterdir()}
    with pytest.raises(UserError, match=r"toy\.inter is already there"):
        write(generate(dataclasses.replace(SMALL, seed=1)), tmp_path / "toy")
    assert {path.name: path.read_bytes() for path in (tmp_path / "toy").iterdir()} == before


def test_a_failed_write_leaves_no_half_file_and_can_be_repeated(tmp_path):
    data = generate(SMALL)
    broken = dataclasses.replace(data, features=data.features | {"textual": np.array([object()])})
    with pytest.raises(ValueError, match="allow_pickle"):
        write(broken, tmp_path / "toy")
    assert [path.name for path in (tmp_path / "toy").iterdir()] == ["image_feat.npy"]
    write(data, tmp_path / "toy")
    assert sorted(path.name for path in (tmp_path / "toy").iterdir()) == [
        "image_feat.npy",
        "text_feat.npy",
        "toy.inter",
    ]
