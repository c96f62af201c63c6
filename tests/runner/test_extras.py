"""What a run has beside its paper, in words."""

import pytest
from helpers import toy_config

from common.scorers import ScorerWeights
from runner.extras import extras, tuned


def calibration(before, after, gain=0.0012):
    return {"metric": "recall@20", "users": 9, "from": before.values(), "to": after.values(), "gain": gain}


def test_a_run_with_the_defaults_has_nothing():
    assert extras(toy_config()) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"popularity": 0.5}, ["popularity 0.5"]),
        ({"popularity": 0.5, "popularity_damping": 0.25}, ["popularity 0.5 (damping 0.25)"]),
        ({"popularity_damping": 0.25}, []),
        ({"co_occurrence": 2.0, "co_occurrence_damping": 1.0}, ["co_occurrence 2 (damping 1)"]),
        ({"calibration": True}, ["scorers tuned on validation"]),
        ({"calibration": True, "popularity": 1.0}, ["popularity 1", "scorers tuned on validation"]),
        ({"weight_average": 0.99}, ["weight_average 0.99"]),
        (
            {"training_neg_sample_num": 4, "neg_sampling": "popularity"},
            ["4 negatives per positive", "negatives by popularity"],
        ),
        ({"refit": True}, ["test of a refit on train and validation, which has no validation of its own"]),
        ({"refit": True, "no_test": True}, []),
        ({"mirror_gradient": {"alpha1": 1.0, "alpha2": 0.3, "beta": 3.0}},
         ["mirror_gradient (alpha1 1, alpha2 0.3, beta 3)"]),
        ({"initialization": "spectral"}, ["initialization spectral (power 1)"]),
        ({"initialization_power": 2.0}, []),
        ({"amp": True}, ["amp"]),
        ({"no_test": True, "learning_rate": 0.1, "seed": 4}, []),
    ],
    ids=str,
)  # fmt: skip
def test_each_option_is_named(settings, words):
    assert extras(toy_config(**settings)) == words


def test_settings_of_an_earlier_version_are_read():
    assert extras({"model": "BPR", "weight_average": 0.0}) == []
    assert extras({"weight_average": 0.9}) == ["weight_average 0.9"]


def test_what_was_tuned_stands_from_what_to_what_with_its_gain():
    off, on = ScorerWeights(), ScorerWeights(co_occurrence=2, co_occurrence_damping=0.5)
    told = "tuned on validation: co_occurrence 0 -> 2, co_occurrence_damping 0 -> 0.5 (+0.0012 recall@20)"
    assert tuned([calibration(off, on)]) == told
    assert tuned([calibration(off, on)] * 3) == told
    assert extras(toy_config(calibration=True), [calibration(off, on)]) == [f"scorers {told}"]


def test_seeds_that_chose_differently_are_told_apart_and_their_gains_averaged():
    found = [calibration(ScorerWeights(popularity=1), ScorerWeights(popularity=p), g) for p, g in ((1, 0), (0.5, 0.01))]
    assert tuned(found) == "tuned on validation: popularity 1 -> 1/0.5 (+0.0050 recall@20)"


def test_where_nothing_was_better_it_says_so():
    same = calibration(ScorerWeights(popularity=1), ScorerWeights(popularity=1), 0.0)
    assert tuned([same, same]) == "tuned on validation: nothing beats what is configured by a standard error"
