"""The first losses of every model against those of the day they were frozen: a change of numbers is seen.

If they are meant to change: `python tests/models/freeze_curves.py MODEL`.
"""

import sys

import freeze_curves  # type: ignore[import-not-found]  # beside this file, where pytest looks
import pytest
from freeze_curves import STEPS, curve, own_settings, read, trained_models

AGAIN = "if that is meant: python tests/models/freeze_curves.py MODEL"
# Terms that are the same at some steps, and why.
STANDS_STILL = {("MMSSL", "contrastive"): "its graphs of modalities, as released, are empty in most steps"}


def test_every_model_is_frozen_and_no_other():
    assert set(read()) == set(trained_models())


@pytest.mark.parametrize("name", trained_models())
def test_losses_are_those_of_the_frozen_curve(name):
    settings, terms = read()[name]["settings"], read()[name]["terms"]
    assert set(settings) == set(own_settings(name)), f"the model's keys have changed; {AGAIN}"
    found = curve(name, settings)
    assert list(found) == list(terms), f"the terms have changed; {AGAIN}"
    for term, numbers in found.items():
        assert len(numbers) == STEPS
        assert numbers == pytest.approx(terms[term], rel=1e-4, abs=1e-9), f"{term} has changed; {AGAIN}"
        moves = len(set(numbers)) > 1 if (name, term) in STANDS_STILL else len(set(numbers)) == STEPS
        assert moves or not any(numbers), f"{term} does not move"


def test_one_model_can_be_frozen_without_touching_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(freeze_curves, "FILE", tmp_path / "curves.json")
    monkeypatch.setattr(freeze_curves, "curve", lambda name, settings: {"bpr": [0.5, 1 / 3]})
    monkeypatch.setattr(sys, "argv", ["freeze_curves.py"])
    freeze_curves.main()
    assert set(read()) == set(trained_models())
    monkeypatch.setattr(freeze_curves, "curve", lambda name, settings: {"bpr": [0.25], "reg": [1.0]})
    monkeypatch.setattr(sys, "argv", ["freeze_curves.py", "BPR"])
    freeze_curves.main()
    assert read()["BPR"] == {"settings": own_settings("BPR"), "terms": {"bpr": [0.25], "reg": [1.0]}}
    assert read()["LightGCN"]["terms"] == {"bpr": [0.5, 0.333333]}
    monkeypatch.setattr(sys, "argv", ["freeze_curves.py", "LightGNC"])
    with pytest.raises(SystemExit, match="2"):
        freeze_curves.main()
