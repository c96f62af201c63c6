"""The table of what content is worth: pairs of entries that differ in their features alone."""

from dataclasses import replace

import pytest
from study_tools import make_study, make_trial

from study.report.write_report import gather
from study.spec import Entry

ZERO = {"modality_input": {"visual": "zero"}}


def content_of(tmp_path, entries, values, **changes):
    labels = [entry.label for entry in entries]
    study = replace(make_study(labels, metrics=("recall@20", "ndcg@20")), entries=tuple(entries), **changes)
    results = [
        make_trial(tmp_path, label, seed, 0.1, {"recall@20": value + step, "ndcg@20": value / 2})
        for label, value in zip(labels, values, strict=True)
        for seed, step in ((1, -0.01), (2, 0.01))
    ]
    return gather(study, results)


def table_of(content):
    return next((table for table in content.tables if table.title == "What the modalities are worth"), None)


def entry(label, **settings):
    return Entry(label, "GTC", ("demo",), settings)


def test_the_loss_is_that_against_the_same_entry_with_its_own_features(tmp_path):
    entries = [entry("other", tc_weight=1.0), entry("real"), entry("without", **ZERO)]
    table = table_of(content_of(tmp_path, entries, [0.5, 0.2, 0.15]))
    assert table is not None
    assert table.header == ("data set", "entry", "features", "Recall@20", "NDCG@20")
    (row,) = table.rows
    assert [cell.text for cell in row] == ["demo", "real", "visual zero", "-0.0500 (-25.0%)", "-0.0250 (-25.0%)"]
    assert row[3].value == pytest.approx(-0.05)


def test_real_spelt_out_is_real(tmp_path):
    entries = [entry("real", modality_input={"visual": "real"}), entry("without", **ZERO)]
    table = table_of(content_of(tmp_path, entries, [0.2, 0.3]))
    assert table is not None
    assert [row[3].text for row in table.rows] == ["+0.1000 (+50.0%)"]


def test_an_entry_without_a_twin_has_no_row(tmp_path):
    entries = [entry("real", tc_weight=1.0), entry("without", **ZERO)]
    assert table_of(content_of(tmp_path, entries, [0.2, 0.1])) is None


def test_a_share_that_is_missing_stands_beside_the_whole(tmp_path):
    entries = [entry("real"), entry("half", missing_share={"visual": 0.5, "textual": 0.0})]
    table = table_of(content_of(tmp_path, entries, [0.2, 0.1]))
    assert table is not None
    assert [cell.text for cell in table.rows[0][1:4]] == ["real", "visual 50% missing", "-0.1000 (-50.0%)"]


def test_where_no_features_are_replaced_there_is_no_table(tmp_path):
    assert table_of(content_of(tmp_path, [entry("one"), entry("two")], [0.2, 0.1])) is None


def test_a_setting_of_all_entries_may_be_undone_by_one(tmp_path):
    entries = [entry("real", modality_input=None), entry("without")]
    table = table_of(content_of(tmp_path, entries, [0.2, 0.1], settings=ZERO))
    assert table is not None
    assert [row[1].text for row in table.rows] == ["real"]
