"""Comparison tables: selection by mean validation over seeds, diverged runs, oracle, full precision."""

from __future__ import annotations

import csv
import dataclasses
import statistics
from pathlib import Path
from typing import Any

import pytest
from helpers import toy_configs

from runner.comparison import Row, footnotes, summarize, to_cells, to_markdown, to_records, to_text
from runner.quick_start import Result
from utils.config.configuration import Config
from utils.files import write_csv

METRIC = "recall@20"


def finished(config: Config, valid: float, test: float, epoch: int = 5) -> Result:
    metrics = {
        "status": "finished",
        "valid": {METRIC: valid, "ndcg@20": valid / 3},
        "test": {METRIC: test, "ndcg@20": test / 3},
        "best_epoch": epoch,
        "seconds": 1.5,
    }
    return Result(config, metrics, Path("runs/x"))


def diverged(config: Config) -> Result:
    metrics = {"status": "diverged", "valid": None, "test": None, "best_epoch": None, "seconds": 0.25}
    return Result(config, metrics, Path("runs/x"))


def planted() -> list[Result]:
    """Three points, two seeds each: the best by mean validation, by one seed's validation, and by test all differ."""
    scores = {
        (1, 5): (0.30, 0.20), (1, 6): (0.32, 0.22),
        (2, 5): (0.40, 0.21), (2, 6): (0.10, 0.23),
        (3, 5): (0.29, 0.90), (3, 6): (0.30, 0.80),
    }  # fmt: skip
    return [
        finished(config, *scores[config["n_ui_layers"], config["seed"]], epoch=config["seed"])
        for config in toy_configs(n_ui_layers=(1, 2, 3), seed=(5, 6))
    ]


def selected(rows: list[Row]) -> list[tuple[str, str, Any]]:
    return [(row.dataset, row.model, row.settings.get("n_ui_layers")) for row in rows if row.selected]


def test_runs_of_a_point_are_one_row_over_its_seeds():
    rows = summarize(planted(), {})
    assert [row.settings for row in rows] == [{"n_ui_layers": 1}, {"n_ui_layers": 2}, {"n_ui_layers": 3}]
    assert [row.seeds for row in rows] == [[5, 6]] * 3
    assert rows[0].valid == {METRIC: [0.30, 0.32], "ndcg@20": [0.30 / 3, 0.32 / 3]}
    assert rows[2].test[METRIC] == [0.90, 0.80]
    assert [row.best_epochs for row in rows] == [[5, 6]] * 3
    assert [row.seconds for row in rows] == [3.0] * 3


def test_mean_validation_over_seeds_selects_and_neither_test_nor_one_seed():
    rows = summarize(planted(), {})
    assert selected(rows) == [("demo", "Toy", 1)]
    assert max(rows, key=lambda row: statistics.fmean(row.test[METRIC])).settings == {"n_ui_layers": 3}
    assert max(rows, key=lambda row: max(row.valid[METRIC])).settings == {"n_ui_layers": 2}


def test_metric_that_selects_is_the_one_configured():
    configs = toy_configs(n_ui_layers=(1, 2), valid_metric="NDCG@20")
    results = [finished(configs[0], 0.9, 0.1), finished(configs[1], 0.1, 0.1)]
    results[1].metrics["valid"]["ndcg@20"] = 0.8
    assert selected(summarize(results, {})) == [("demo", "Toy", 2)]


def test_order_of_the_runs_does_not_matter_and_of_equals_the_first_is_taken():
    assert selected(summarize(planted()[::-1], {})) == [("demo", "Toy", 1)]
    results = [finished(config, 0.5, 0.5) for config in toy_configs(n_ui_layers=(4, 3))]
    assert selected(summarize(results, {})) == [("demo", "Toy", 4)]


def test_each_model_and_data_set_has_its_own_best():
    results = planted()
    other = [dataclasses.replace(r, config=dataclasses.replace(r.config, model="Other")) for r in results[2:]]
    sets = [dataclasses.replace(r, config=dataclasses.replace(r.config, dataset="baby")) for r in results[4:]]
    assert selected(summarize(results + other + sets, {})) == [
        ("demo", "Toy", 1),
        ("demo", "Other", 3),
        ("baby", "Toy", 3),
    ]


def test_point_with_a_diverged_seed_is_not_selected():
    results = planted()
    results[1] = diverged(results[1].config)
    rows = summarize(results, {})
    assert selected(rows) == [("demo", "Toy", 3)]
    assert (rows[0].failed, rows[0].seeds, rows[0].valid[METRIC]) == (1, [5, 6], [0.30])
    assert rows[0].seconds == 1.75
    assert to_records(rows)[0]["diverged"] == 1


def test_where_all_diverged_none_is_selected():
    rows = summarize([diverged(result.config) for result in planted()], {})
    assert selected(rows) == []
    assert [record["diverged"] for record in to_records(rows)] == [2, 2, 2]


def test_short_table_says_of_a_point_that_it_diverged():
    results = planted()
    results[:2] = [diverged(result.config) for result in results[:2]]
    cells = to_cells(summarize(results, {}))
    assert cells[1][3:6] == ["-", "diverged", "diverged"]
    assert "diverged" not in cells[2] + cells[3]


def test_a_score_of_zero_can_be_selected():
    (config,) = toy_configs()
    assert selected(summarize([finished(config, 0.0, 0.0)], {})) == [("demo", "Toy", None)]


def test_oracle_stands_below_the_rows_of_its_data_set():
    results = planted()
    baby = [dataclasses.replace(r, config=dataclasses.replace(r.config, dataset="baby")) for r in results]
    rows = summarize(results + baby, {"demo": {METRIC: 0.7, "ndcg@20": 0.4}})
    assert [row.model for row in rows] == ["Toy"] * 3 + ["Oracle"] + ["Toy"] * 3
    assert not rows[3].selected
    cells = to_cells(rows)
    share = cells[0].index(f"% of oracle ({METRIC})")
    assert [line[share] for line in cells[1:]] == ["30.0", "31.4", "121.4", "100.0", "", "", ""]


def test_records_keep_full_precision(tmp_path):
    values = [0.1 + 0.2, 1 / 3]
    results = [finished(config, v, v / 7) for config, v in zip(toy_configs(seed=(5, 6)), values, strict=True)]
    (record,) = to_records(summarize(results, {}))
    tests = [v / 7 for v in values]
    assert record[f"valid_{METRIC}"] == statistics.fmean(values)
    assert record[f"test_{METRIC}"] == statistics.fmean(tests)
    assert record[f"test_{METRIC}_std"] == statistics.stdev(tests)
    write_csv(tmp_path / "comparison.csv", [record])
    with open(tmp_path / "comparison.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row[f"test_{METRIC}"]) == statistics.fmean(tests)
    assert (row["seeds"], row["best_epoch"], row["selected"]) == ("5 6", "5 5", "True")


def test_records_hold_every_metric_and_axis_of_every_row():
    first, second = toy_configs(n_ui_layers=(1, 2)), toy_configs(reg_weight=(0.5, 0.25))
    records = to_records(summarize([finished(config, 0.1, 0.1) for config in first + second], {}))
    assert [record["n_ui_layers"] for record in records] == [1, 2, "", ""]
    assert [record["reg_weight"] for record in records] == ["", "", 0.5, 0.25]
    expected = {f"{split}_{name}" for split in ("valid", "test") for name in (METRIC, "ndcg@20")}
    assert all(expected <= set(record) for record in records)
    assert records[0][f"test_{METRIC}_std"] == "", "one seed has no spread"


def test_short_table_shows_means_and_spread_and_marks_the_selected():
    cells = to_cells(summarize(planted(), {}))
    header = ["data set", "model", "n_ui_layers", f"valid {METRIC}", f"test {METRIC}", "test ndcg@20"]
    assert cells[0] == [*header, "best epoch", "seconds", "run"]
    assert cells[1][:5] == ["demo", "Toy *", "1", "0.3100 ± 0.0141", "0.2100 ± 0.0141"]
    assert cells[1][-3:-1] == ["5/6", "3"]
    assert [line[1] for line in cells[1:]] == ["Toy *", "Toy", "Toy"]
    (config,) = toy_configs()
    single = to_cells(summarize([finished(config, 0.31, 0.21)], {}))
    assert single[1][:3] == ["demo", "Toy", "0.3100"], "one point needs no mark"


@pytest.mark.parametrize("seeds", [(5,), (5, 6)])
def test_text_and_markdown_hold_every_cell(seeds):
    cells = to_cells(summarize([finished(config, 0.3, 0.2) for config in toy_configs(seed=seeds)], {}))
    lines = to_text(cells).splitlines()
    assert len(lines) == 1 + len(cells)
    starts = [lines[1].index("-", begin) for begin in (0, lines[1].index(" "))]
    assert [lines[2][start:].startswith(cell) for start, cell in zip(starts, cells[1], strict=False)] == [True, True]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in to_markdown(cells).splitlines()]
    assert table == [cells[0], ["---"] * len(cells[0]), *cells[1:]]


def without_test(config: Config, valid: float) -> Result:
    result = finished(config, valid, 0.0)
    result.metrics["test"] = None
    return result


def test_table_of_runs_without_a_test_shows_validation_and_says_so():
    configs = toy_configs(n_ui_layers=(1, 2), no_test=True)
    rows = summarize([without_test(config, valid) for config, valid in zip(configs, (0.2, 0.4), strict=True)], {})
    assert selected(rows) == [("demo", "Toy", 2)]
    cells = to_cells(rows)
    assert cells[0][3:] == [f"valid {METRIC}", "valid ndcg@20", "best epoch", "seconds", "run"]
    assert cells[2][3:5] == ["0.4000", "0.1333"]
    assert not any("test" in cell for line in cells for cell in line)
    assert footnotes(rows) == ["validation only (no_test): no test score was computed"]
    assert not any(name.startswith("test_") for record in to_records(rows) for name in record)


def test_runs_with_and_without_a_test_keep_their_columns_apart():
    configs = toy_configs(no_test=(False, True))
    rows = summarize([finished(configs[0], 0.3, 0.2), without_test(configs[1], 0.4)], {})
    assert [line[4] for line in to_cells(rows)] == [f"test {METRIC}", "0.2000", "-"]
    assert footnotes(rows) == []


def test_what_a_run_has_beside_its_paper_is_a_footnote():
    plain, averaged = toy_configs(weight_average=(0.0, 0.9))
    (again,) = toy_configs(weight_average=0.9, n_ui_layers=3)
    (other,) = toy_configs(popularity=0.5, min_steps=7)
    rows = summarize([finished(config, 0.3, 0.2) for config in (plain, averaged, again, other)], {})
    assert [line[1] for line in to_cells(rows)[1:]] == ["Toy *", "Toy [1]", "Toy [1]", "Toy [2]"]
    notes = [
        "[1] beside its paper: weight_average 0.9",
        "[2] beside its paper: popularity 0.5; unlike the other rows: min_steps 7 (0)",
    ]
    assert footnotes(rows) == notes
    assert [record["note"] for record in to_records(rows)] == ["", notes[0][4:], notes[0][4:], notes[1][4:]]
    assert to_markdown(to_cells(rows), notes).endswith(f"|\n\n{notes[0]}  \n{notes[1]}  \n")


def test_footnote_says_what_was_tuned():
    configs = toy_configs(calibration=True, seed=(5, 6))
    results = [finished(config, 0.3, 0.2) for config in configs]
    off = {"popularity": 0.0, "co_occurrence": 0.0}
    for result, weight in zip(results, (2.0, 4.0), strict=True):
        found = {"metric": METRIC, "users": 9, "from": off, "to": off | {"co_occurrence": weight}, "gain": weight / 100}
        result.metrics["calibration"] = found
    told = f"[1] beside its paper: scorers tuned on validation: co_occurrence 0 -> 2/4 (+0.0300 {METRIC})"
    assert footnotes(summarize(results, {})) == [told]


def test_rules_that_differ_between_the_rows_of_a_data_set_are_told():
    first, second = toy_configs()[0], toy_configs(stopping_step=3)[0]
    other = dataclasses.replace(second, model="Other")
    rows = summarize([finished(first, 0.3, 0.2), finished(other, 0.3, 0.2)], {})
    assert footnotes(rows) == ["[1] unlike the other rows: stopping_step 3 (20)"]
    elsewhere = dataclasses.replace(other, dataset="baby")
    assert footnotes(summarize([finished(first, 0.3, 0.2), finished(elsewhere, 0.3, 0.2)], {})) == []
    axis = [finished(config, 0.3, 0.2) for config in toy_configs(protocol=("mmrec", "strict"))]
    assert footnotes(summarize(axis, {})) == [], "a column of its own tells that"
