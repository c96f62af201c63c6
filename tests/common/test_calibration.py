"""Choosing settings of evaluation by validation."""

import numpy as np
import pytest

from common.calibration import by_validation

USERS = 400


def noise(seed):
    return np.random.default_rng(seed).normal(size=USERS)


def test_the_best_is_found_one_setting_at_a_time():
    """The best of each differs with the other: `b` is 2 at first, then `a`; then both are 3."""
    asked = []

    def measure(values):
        asked.append(tuple(values.values()))
        a, b = values["a"], values["b"]
        return np.full(USERS, -((a - b) ** 2) - 2 * (b - 3) ** 2)

    assert by_validation({"a": [0, 1, 2, 3], "b": [0, 1, 2, 3]}, measure) == {"a": 3, "b": 3}
    assert {(0, 0), (0, 2), (2, 2), (2, 3)} < set(asked)
    assert len(asked) == len(set(asked)), "none is measured twice"


def test_the_first_value_is_where_it_starts():
    assert by_validation({"a": [5.0, 1.0]}, lambda values: np.zeros(USERS)) == {"a": 5.0}
    assert by_validation({"a": [5.0, 1.0]}, lambda values: np.full(USERS, -values["a"])) == {"a": 1.0}


@pytest.mark.parametrize(("gain", "expected"), [(0.5, 0), (2.0, 1)])
def test_a_better_value_must_be_so_by_a_standard_error_of_the_paired_differences(gain, expected):
    difference = noise(1)
    difference += gain * difference.std() / USERS**0.5 - difference.mean()
    common = 100 * noise(2)  # differs between users, and counts for nothing
    assert by_validation({"a": [0, 1]}, lambda values: common + values["a"] * difference) == {"a": expected}


def test_settings_do_not_hinder_each_other_where_both_gain():
    def measure(values):
        return np.full(USERS, 1.0 * (values["a"] + values["b"]))

    assert by_validation({"a": range(50), "b": range(50)}, measure) == {"a": 49, "b": 49}
    assert by_validation({}, measure) == {}
